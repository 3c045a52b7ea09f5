//! Tables that fit the terminal: fixed columns keep their width, text columns take what is left.

use super::text::{Style, Text};

/// Spaces between two columns.
const GAP: usize = 2;

/// A text column is never cut below this width.
const TEXT_WIDTH_MIN: usize = 12;

/// One column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    name: &'static str,
    right: bool,
    text: bool,
    wide: bool,
}

impl Column {
    /// A column as wide as its widest cell. `name` is lower snake case: it heads the CSV as it is, the table in capitals.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, right: false, text: false, wide: false }
    }

    /// Aligns to the right, for numbers.
    #[must_use]
    pub(crate) const fn right(mut self) -> Self {
        self.right = true;
        self
    }

    /// Cut where the terminal is too narrow. `--format wide` shows all of it.
    #[must_use]
    pub(crate) const fn text(mut self) -> Self {
        self.text = true;
        self
    }

    /// Only shown with `--format wide` and in CSV.
    #[must_use]
    pub(crate) const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }
}

/// Rows under named columns. The first column is what `--names` prints.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Text>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    /// Adds a row; missing cells are empty, cells too many are dropped.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Text>) {
        let mut cells: Vec<Text> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        cells.resize(self.columns.len(), Text::new());
        self.rows.push(cells);
    }

    /// The lines of the table for people. `width`: columns of the terminal, or `None` to cut nothing.
    /// An empty table has no lines, not even a heading.
    pub(crate) fn lines(&self, width: Option<usize>, wide: bool, ascii: bool) -> Vec<Text> {
        if self.rows.is_empty() {
            return Vec::new();
        }
        let shown: Vec<usize> = (0..self.columns.len()).filter(|&index| wide || !self.columns[index].wide).collect();
        let mut widths: Vec<usize> = shown.iter().map(|&index| self.natural_width(index)).collect();
        if let Some(width) = width {
            self.shrink(&shown, &mut widths, width);
        }
        let heading = self.columns.iter().map(|column| Text::styled(Style::Dim, column.name.to_uppercase()));
        let heading: Vec<Text> = heading.collect();
        std::iter::once(&heading).chain(&self.rows).map(|cells| self.line(cells, &shown, &widths, ascii)).collect()
    }

    fn natural_width(&self, index: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[index].width());
        cells.max().unwrap_or(0).max(self.columns[index].name.len())
    }

    /// Takes the missing columns from the widest text column, again and again.
    fn shrink(&self, shown: &[usize], widths: &mut [usize], width: usize) {
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        while total(widths) > width {
            let texts = (0..widths.len()).filter(|&at| self.columns[shown[at]].text && widths[at] > TEXT_WIDTH_MIN);
            let Some(widest) = texts.max_by_key(|&at| widths[at]) else { return };
            widths[widest] -= 1;
        }
    }

    fn line(&self, cells: &[Text], shown: &[usize], widths: &[usize], ascii: bool) -> Text {
        let mut line = Text::new();
        let mut start = 0;
        for (position, (&index, &width)) in shown.iter().zip(widths).enumerate() {
            let cell = cells[index].clone().cut_to(width, ascii);
            let indent = if self.columns[index].right { width - cell.width() } else { 0 };
            // Padding comes before a cell, never after the last one, so no line ends in spaces.
            if !cell.is_empty() {
                line = line.pad_to(start + indent).join(cell);
            }
            start += width + if position + 1 < shown.len() { GAP } else { 0 };
        }
        line
    }

    /// The first column, one name a line.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.rows.iter().filter_map(|row| row.first()).map(Text::to_plain)
    }

    /// RFC 4180 with a heading, lines ended by a line feed.
    pub(crate) fn csv(&self) -> String {
        let heading = self.columns.iter().map(|column| csv_cell(column.name)).collect::<Vec<_>>().join(",");
        self.rows.iter().fold(heading + "\n", |mut csv, row| {
            let cells: Vec<String> = row.iter().map(|cell| csv_cell(&cell.to_plain())).collect();
            csv.push_str(&cells.join(","));
            csv.push('\n');
            csv
        })
    }
}

fn csv_cell(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let columns =
            [Column::new("name"), Column::new("count").right(), Column::new("what").text(), Column::new("id").wide()];
        let mut table = Table::new(columns);
        table.row(["web1".into(), "9,842".into(), "a, \"long\" text that will not fit at all".into(), "x1".into()]);
        table.row(["db-long-name".into(), "1".into(), Text::new(), Text::new()]);
        table
    }

    fn shown(lines: &[Text]) -> String {
        lines.iter().map(Text::to_plain).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn text_gives_way_to_the_terminal() {
        insta::assert_snapshot!(shown(&sample().lines(Some(40), false, false)), @r#"
        NAME          COUNT  WHAT
        web1          9,842  a, "long" text tha…
        db-long-name      1
        "#);
        insta::assert_snapshot!(shown(&sample().lines(Some(40), true, true)), @r#"
        NAME          COUNT  WHAT             ID
        web1          9,842  a, "long" text~  x1
        db-long-name      1
        "#);
    }

    #[test]
    fn a_pipe_gets_everything() {
        insta::assert_snapshot!(shown(&sample().lines(None, false, false)), @r#"
        NAME          COUNT  WHAT
        web1          9,842  a, "long" text that will not fit at all
        db-long-name      1
        "#);
        assert_eq!(sample().names().collect::<Vec<_>>(), ["web1", "db-long-name"]);
        insta::assert_snapshot!(sample().csv(), @r#"
        name,count,what,id
        web1,"9,842","a, ""long"" text that will not fit at all",x1
        db-long-name,1,,
        "#);
    }

    #[test]
    fn an_empty_table_is_empty() {
        assert!(Table::new([Column::new("name")]).lines(Some(80), false, false).is_empty());
    }
}
