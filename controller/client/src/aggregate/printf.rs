//! The part of C's `printf` that descriptions use in `format`: `%s`, `%v`, `%d`, `%f`, `%g`, with `-`, `0`,
//! a width and a precision.

/// Widest field and longest precision; descriptions come from others.
const WIDTH_MAX: usize = 80;

/// A value to be written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Argument<'a> {
    Text(&'a str),
    Count(usize),
    Number(f64),
}

/// A format that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Printf {
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Field(Field),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    left: bool,
    zeros: bool,
    width: usize,
    precision: Option<usize>,
    verb: char,
}

impl Printf {
    /// Reads a format that writes at most `arguments` values; `None` if it is none that can be followed.
    pub(super) fn parse(text: &str, arguments: usize) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut characters = text.chars().peekable();
        let mut fields = 0;
        while let Some(character) = characters.next() {
            if character != '%' {
                literal.push(character);
                continue;
            }
            if characters.next_if_eq(&'%').is_some() {
                literal.push('%');
                continue;
            }
            let mut field = Field { left: false, zeros: false, width: 0, precision: None, verb: 's' };
            while let Some(flag) = characters.next_if(|flag| matches!(flag, '-' | '0')) {
                field.left |= flag == '-';
                field.zeros |= flag == '0';
            }
            let digits = |characters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
                let mut number = 0usize;
                while let Some(digit) = characters.peek().and_then(|character| character.to_digit(10)) {
                    characters.next();
                    number = number.saturating_mul(10).saturating_add(digit as usize);
                }
                number
            };
            field.width = digits(&mut characters);
            if characters.next_if_eq(&'.').is_some() {
                field.precision = Some(digits(&mut characters));
            }
            field.verb = characters.next().filter(|verb| matches!(verb, 's' | 'v' | 'd' | 'f' | 'g'))?;
            fields += 1;
            if field.width > WIDTH_MAX || field.precision.is_some_and(|precision| precision > WIDTH_MAX) {
                return None;
            }
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            pieces.push(Piece::Field(field));
        }
        pieces.push(Piece::Literal(literal));
        // Without a field nothing of the result would be said.
        (1..=arguments).contains(&fields).then_some(Self { pieces })
    }

    /// Writes the values in their order; `None` if a verb does not fit its value.
    pub(super) fn write(&self, arguments: &[Argument<'_>]) -> Option<String> {
        let mut written = String::new();
        let mut arguments = arguments.iter();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => written.push_str(text),
                Piece::Field(field) => written.push_str(&field.write(*arguments.next()?)?),
            }
        }
        Some(written)
    }
}

impl Field {
    fn write(&self, argument: Argument<'_>) -> Option<String> {
        let text = match (self.verb, argument) {
            ('s' | 'v', Argument::Text(text)) => match self.precision {
                Some(precision) => text.chars().take(precision).collect(),
                None => text.to_owned(),
            },
            ('d' | 's' | 'v', Argument::Count(count)) => count.to_string(),
            ('f', Argument::Number(number)) => format!("{number:.*}", self.precision.unwrap_or(6)),
            ('d', Argument::Number(number)) => format!("{:.0}", number.trunc()),
            ('g' | 's' | 'v', Argument::Number(number)) => super::shown(number),
            _ => return None,
        };
        let missing = self.width.saturating_sub(text.chars().count());
        Some(match () {
            () if self.left => text + &" ".repeat(missing),
            // Zeros stand between the sign and the digits.
            () if self.zeros && !matches!(argument, Argument::Text(_)) => match text.strip_prefix('-') {
                Some(digits) => format!("-{}{digits}", "0".repeat(missing)),
                None => "0".repeat(missing) + &text,
            },
            () => " ".repeat(missing) + &text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_descriptions_write_is_understood() {
        let check = |format: &str, arguments: &[Argument<'_>], expected: Option<&str>| {
            let written = Printf::parse(format, arguments.len()).and_then(|format| format.write(arguments));
            assert_eq!(written.as_deref(), expected, "{format}");
        };
        let summary = [Argument::Text("running"), Argument::Count(12)];
        check("%s: %d hosts", &summary, Some("running: 12 hosts"));
        check("%10s: %-4d|", &summary, Some("   running: 12  |"));
        check("%-10s = %04d", &summary, Some("running    = 0012"));
        check("only %s", &summary, Some("only running"));
        check("%v at 100%%", &summary, Some("running at 100%"));
        check("Average: %.3f", &[Argument::Number(1.0 / 3.0)], Some("Average: 0.333"));
        check("%f", &[Argument::Number(2.5)], Some("2.500000"));
        check("%d MB", &[Argument::Number(-2.9)], Some("-2 MB"));
        check("%06.1f", &[Argument::Number(-2.5)], Some("-002.5"));
        for wrong in ["%x", "%", "100%", "%s %d %d", "nothing", "%999s", "%.999f", "%n"] {
            check(wrong, &summary, None);
        }
        check("%d of %s", &summary, None);
        check("%s", &[Argument::Number(1.5)], Some("1.5"));
    }
}
