//! What a client may say before it leaves: every command of the server, in `commands.txt`.

use std::collections::BTreeSet;

use crate::harness::{Wire, command};

/// Commands that a client sends one after another, each in words.
pub type Said = Vec<Vec<&'static str>>;

/// All commands of the file, and whether each is about connections.
pub fn all() -> Vec<(Said, bool)> {
    let mut about_connections = false;
    let mut all = Vec::new();
    for line in FILE.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            about_connections = title.starts_with("Connections:");
        } else if !line.is_empty() && !line.starts_with(EXCLUDED) {
            let said = line.split(" ; ").map(|command| command.split(' ').collect());
            all.push((said.collect(), about_connections));
        }
    }
    all
}

const FILE: &str = include_str!("commands.txt");
const EXCLUDED: &str = "x: ";

/// Commands and subcommands of the server that the file does not mention. Before 7.0 a server cannot list them.
pub fn missing(direct: &mut Wire) -> Vec<String> {
    let words: BTreeSet<String> = FILE
        .lines()
        .flat_map(|line| line.strip_prefix(EXCLUDED).unwrap_or(line).split(" ; "))
        .flat_map(|command| {
            let words: Vec<String> = command.split([' ', ':']).take(2).map(str::to_ascii_lowercase).collect();
            [words[0].clone(), words.join("|")]
        })
        .collect();
    let list = String::from_utf8(direct.ask(&["COMMAND", "LIST"])).unwrap();
    let names = list.lines().skip(2).step_by(2);
    names.map(str::to_ascii_lowercase).filter(|name| !words.contains(name)).collect()
}

/// How commands are written on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    Arrays,
    /// As arrays of strings in lower case.
    SmallArrays,
    /// Each in a line.
    Lines,
}

pub fn written(said: &Said, how: Written) -> Vec<u8> {
    let each = |words: &Vec<&str>| match how {
        Written::Arrays => command(words),
        Written::SmallArrays => {
            let name = words[0].to_ascii_lowercase();
            command(&[&[name.as_str()], &words[1..]].concat())
        }
        // The server also splits a line at quotes.
        Written::Lines if words.iter().any(|word| word.contains('\'')) => command(words),
        Written::Lines => format!("{}\r\n", words.join(" ")).into_bytes(),
    };
    said.iter().flat_map(each).collect()
}

/// The minimum number of replies to these commands.
pub fn replies(said: &Said) -> usize {
    let (mut count, mut off, mut skip, mut queues) = (0, false, false, false);
    for words in said {
        let is = |words: &[&str], text: &str| words.join(" ").eq_ignore_ascii_case(text);
        if queues {
            count += usize::from(!off);
        } else if is(words, "CLIENT REPLY OFF") {
            off = true;
        } else if is(words, "CLIENT REPLY SKIP") {
            skip = !off;
        } else {
            off &= !is(words, "CLIENT REPLY ON");
            count += usize::from(!off && !skip);
            skip = false;
        }
        queues |= is(words, "MULTI");
        queues &= !(is(words, "EXEC") || is(words, "DISCARD") || is(words, "RESET"));
    }
    count
}
