//! The SQL of `store/src`, statement by statement: which tables it names, and whether it names their project too.
//!
//! A statement stands in one literal, or begins in one and is completed by those that follow in its function. A
//! table with owners is one that the migrations give a `project_id`.

use std::collections::BTreeSet;

/// A string literal of Rust.
struct Literal {
    /// Where it begins.
    at: usize,
    text: String,
}

/// Tables whose rows belong to a project, from the text of all migrations.
pub(crate) fn owned_tables(migrations: &str) -> BTreeSet<String> {
    let made = migrations.split("create table ").skip(1);
    let owned = made.filter_map(|rest| {
        let (name, body) = rest.split_once(' ')?;
        let body = body.strip_prefix('(')?.split("\n)").next()?;
        body.contains("project_id").then(|| name.to_owned())
    });
    owned.collect()
}

/// What names a table with owners, or a table that is filled in later, and not its project: the mention
/// with what follows it.
pub(crate) fn unowned_mentions(source: &str, owned: &BTreeSet<String>) -> Vec<String> {
    let program = source.split("#[cfg(test)]").next().unwrap_or_default();
    let literals = literals(program);
    let mut found = Vec::new();
    for (number, literal) in literals.iter().enumerate() {
        let end = end_of_function(program, literal.at);
        let following = literals[number + 1..].iter();
        let rest: Vec<&str> = following
            .take_while(|next| next.at < end)
            .map(|next| next.text.as_str())
            .collect();
        found.extend(unowned_in(&literal.text, &rest.join(" "), owned));
    }
    found
}

/// Mentions in a statement of Rust's program, or in a whole file of SQL.
pub(crate) fn unowned_in(text: &str, rest: &str, owned: &BTreeSet<String>) -> Vec<String> {
    const BEFORE_A_TABLE: [&str; 7] = [
        "from", "join", "update", "into", "using", "copy", "truncate",
    ];
    let words = words(text);
    let completed = [words.clone(), self::words(rest)].concat();
    let mut found = Vec::new();
    let mut bare = 0;
    for (place, pair) in words.windows(2).enumerate() {
        let [before, name] = [pair[0], pair[1]];
        let is_table = owned.contains(name) || name.starts_with('{');
        let is_of_extract = place > 0 && words[place - 1] == "epoch";
        if !(BEFORE_A_TABLE.contains(&before) && is_table) || is_of_extract {
            continue;
        }
        // What is inserted lists its columns by their own names.
        let alias = alias(&words[place + 2..]).filter(|_| before != "into");
        let is_owned = if let Some(alias) = alias {
            let column = format!("{alias}.project_id");
            completed.contains(&column.as_str())
        } else {
            bare += 1;
            let named = completed.iter().filter(|word| word.ends_with("project_id"));
            named.count() >= bare
        };
        if !is_owned {
            found.push(words[place..].join(" "));
        }
    }
    found
}

/// The other name that a table has in its statement, from what follows its name.
fn alias<'a>(rest: &[&'a str]) -> Option<&'a str> {
    // What may follow a table without another name.
    const OTHERS: [&str; 16] = [
        "where",
        "set",
        "on",
        "cross",
        "left",
        "join",
        "order",
        "group",
        "limit",
        "values",
        "using",
        "select",
        "union",
        "for",
        "returning",
        "and",
    ];
    let rest = rest.strip_prefix(&["as"]).unwrap_or(rest);
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
    let next = rest.first().copied().filter(is_name)?;
    (!OTHERS.contains(&next)).then_some(next)
}

/// Names, whole with their dots and braces, and everything else character by character.
fn words(text: &str) -> Vec<&str> {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_.{}".contains(&byte);
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = rest.bytes().take_while(|byte| in_name(*byte)).count();
        let length = length.max(if length == 0 { first.len_utf8() } else { 0 });
        words.push(&rest[..length]);
        rest = rest[length..].trim_start();
    }
    words
}

/// Where the function ends in which that place lies, as rustfmt sets it.
fn end_of_function(program: &str, at: usize) -> usize {
    let before = program[..at].lines().rev();
    let mut heads = before.filter(|line| line.contains("fn "));
    let head = heads.find(|line| !line.trim_start().starts_with("//"));
    let indent = head.map_or(0, |line| line.len() - line.trim_start().len());
    let end = format!("\n{}}}\n", " ".repeat(indent));
    program[at..]
        .find(&end)
        .map_or(program.len(), |length| at + length)
}

/// Every string literal of a file, unescaped as far as SQL needs it; comments and characters are passed over.
fn literals(source: &str) -> Vec<Literal> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < source.len() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            let length = raw.find("\"#").unwrap_or(raw.len());
            let text = raw[..length].to_owned();
            found.push(Literal { at, text });
            at += "r#\"".len() + length + "\"#".len();
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let length = closing_quote(quoted);
            let text = unescape(&quoted[..length]);
            found.push(Literal { at, text });
            at += length + 2;
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\'") {
            at += 3;
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

fn closing_quote(quoted: &str) -> usize {
    let mut is_escaped = false;
    let end = quoted.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    end.unwrap_or(quoted.len())
}

fn unescape(text: &str) -> String {
    let lines: Vec<&str> = text.split("\\\n").collect();
    let joined: Vec<&str> = lines.iter().map(|line| line.trim_start()).collect();
    joined.join(" ").replace("\\\"", "\"").replace("\\n", "\n")
}

#[test]
fn statements_without_their_project_are_found() {
    let owned = BTreeSet::from(["traces".to_owned(), "media_chunks".to_owned()]);
    let sound = [
        r#"fn a() { q("select 1 from traces where project_id = $1") }"#,
        r#"fn a() { q("insert into traces (project_id, id) values ($1, $2)") }"#,
        "fn a() {\n    q(\"select 1 from traces t where \");\n    p(\"t.project_id = \");\n}\n",
        r#"fn a() { q("select 1 from traces t join media_chunks c on c.project_id = t.project_id") }"#,
        "// from traces\nfn a() { q('\"', \"select 1 from projects\") }",
    ];
    for source in sound {
        assert_eq!(
            unowned_mentions(source, &owned),
            Vec::<String>::new(),
            "{source}"
        );
    }
    let faulty = [
        r#"fn a() { q("select 1 from traces where id = $1") }"#,
        r#"fn a() { q("delete from media_chunks where upload_id = $1") }"#,
        r#"fn a() { q("update traces set name = $1") }"#,
        r#"fn a() { q("select 1 from traces t join media_chunks c on c.id = t.id where t.project_id = $1") }"#,
        r#"fn a() { q("delete from {table}") }"#,
        "fn a() {\n    q(\"from traces t\");\n}\nfn b() {\n    q(\"t.project_id\");\n}\n",
        r#"fn a() { q("delete from traces where id in (select id from media_chunks where project_id = $1)") }"#,
    ];
    for source in faulty {
        assert_eq!(unowned_mentions(source, &owned).len(), 1, "{source}");
    }
}
