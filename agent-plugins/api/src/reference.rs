//! The reference of plugins for the book, made from their descriptions.

use std::fmt::Write as _;

use muster_protocol::ddl::{Action, DataQuery, Ddl, Input, Named, Output};

/// Writes the chapter about these plugins, in Markdown.
#[must_use]
pub fn reference(ddls: &[Ddl]) -> String {
    let mut page = String::from(
        "# The built-in plugins\n\n\
         This page is generated from the descriptions in `agent-plugins/api/ddl/`; `muster plugin show PLUGIN` prints\n\
         the same. [Plugins](plugins.md) explains the words.\n",
    );
    for ddl in ddls {
        // Writing to a `String` cannot fail.
        let _always_ok = plugin(&mut page, ddl);
    }
    page
}

fn plugin(page: &mut String, ddl: &Ddl) -> std::fmt::Result {
    let meta = &ddl.metadata;
    write!(page, "\n## `{}`\n\n{}. Version {}.\n", ddl.name(), meta.description, meta.version)?;
    for described in &ddl.actions {
        action(page, ddl, described)?;
    }
    for query in &ddl.muster.data {
        data_query(page, query)?;
    }
    Ok(())
}

fn action(page: &mut String, ddl: &Ddl, action: &Action) -> std::fmt::Result {
    write!(page, "\n### `{}.{}`\n\n{}.\n\n", ddl.name(), action.name, action.description)?;
    write!(page, "```\nmuster run {}.{}", ddl.name(), action.name)?;
    for (name, input) in action.input.iter().filter(|(_, input)| input.is_required()) {
        write!(page, " {name}={}", input.prompt.to_uppercase().replace(' ', "-"))?;
    }
    write!(page, " -t 'os.family = \"Debian\"'\n```\n\n")?;
    let supports = action.muster.supports;
    let options = [
        (supports.noop, "noop"),
        (supports.effective_user, "effective user"),
        (supports.cancel, "cancel"),
        (supports.stream, "stream"),
    ];
    let options: Vec<_> = options.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
    let changes = if action.muster.read_only { "Changes nothing." } else { "May change the host." };
    let limit = ddl.timeout_s(action);
    writeln!(page, "{changes} Time limit {limit} s. Options: {}.", listed(&options))?;
    if !action.muster.needs.is_empty() {
        writeln!(page, "Needs {}.", action.muster.needs.join("; "))?;
    }
    inputs(page, &action.input)?;
    outputs(page, &action.output)?;
    let summed: Vec<_> = action
        .aggregate
        .iter()
        .filter_map(|aggregate| Some(format!("{} of `{}`", aggregate.function, aggregate.output()?)))
        .collect();
    if !summed.is_empty() {
        writeln!(page, "\nSummed up over all hosts: {}.", summed.join(", "))?;
    }
    Ok(())
}

fn data_query(page: &mut String, query: &DataQuery) -> std::fmt::Result {
    let arguments: Vec<_> =
        query.input.iter().map(|(_, input)| format!("\"{}\"", input.prompt.to_uppercase())).collect();
    write!(page, "\n### In expressions: `{}({})`\n\n{}.\n", query.name, arguments.join(", "), query.description)?;
    inputs(page, &query.input)?;
    outputs(page, &query.output)
}

fn inputs(page: &mut String, inputs: &Named<Input>) -> std::fmt::Result {
    if inputs.is_empty() {
        return Ok(());
    }
    write!(page, "\n| argument | type | needed | meaning | takes |\n|---|---|---|---|---|\n")?;
    for (name, input) in inputs.iter() {
        let needed = match input.usable_default() {
            Some(default) => format!("no: {default}"),
            None if input.is_required() => "yes".to_owned(),
            None => "no".to_owned(),
        };
        let (kind, meaning, takes) = (input.kind.as_str(), cell(&input.description), cell(&input.accepted()));
        writeln!(page, "| `{name}` | {kind} | {needed} | {meaning} | {takes} |")?;
    }
    Ok(())
}

fn outputs(page: &mut String, outputs: &Named<Output>) -> std::fmt::Result {
    write!(page, "\n| output | type | meaning |\n|---|---|---|\n")?;
    for (name, output) in outputs.iter() {
        writeln!(page, "| `{name}` | {} | {} |", output.kind.as_str(), cell(&output.description))?;
    }
    Ok(())
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn listed(words: &[&str]) -> String {
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
