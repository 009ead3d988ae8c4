//! Each command that waits for an element, and whether the element is still there.

use crate::harness::{Engine, Wire, command};

pub(super) struct Blocking {
    pub name: &'static str,
    /// `KEY` stands for the key, `TO` for one in the same slot.
    request: &'static [&'static str],
    before: &'static [&'static str],
    push: &'static [&'static str],
}

const LIST: &[&str] = &["RPUSH", "KEY", "job"];
const SORTED: &[&str] = &["ZADD", "KEY", "1", "job"];
const STREAM: &[&str] = &["XADD", "KEY", "1-1", "f", "job"];

const ALL: &[Blocking] = &[
    Blocking { name: "BLPOP", request: &["BLPOP", "KEY", "0"], before: &[], push: LIST },
    Blocking { name: "BRPOP", request: &["BRPOP", "KEY", "0"], before: &[], push: LIST },
    Blocking {
        name: "BLMOVE",
        request: &["BLMOVE", "KEY", "TO", "LEFT", "RIGHT", "0"],
        before: &[],
        push: LIST,
    },
    Blocking { name: "BRPOPLPUSH", request: &["BRPOPLPUSH", "KEY", "TO", "0"], before: &[], push: LIST },
    Blocking { name: "BLMPOP", request: &["BLMPOP", "0", "1", "KEY", "LEFT"], before: &[], push: LIST },
    Blocking { name: "BZPOPMIN", request: &["BZPOPMIN", "KEY", "0"], before: &[], push: SORTED },
    Blocking { name: "BZPOPMAX", request: &["BZPOPMAX", "KEY", "0"], before: &[], push: SORTED },
    Blocking { name: "BZMPOP", request: &["BZMPOP", "0", "1", "KEY", "MIN"], before: &[], push: SORTED },
    Blocking {
        name: "XREAD",
        request: &["XREAD", "BLOCK", "0", "STREAMS", "KEY", "$"],
        before: &[],
        push: STREAM,
    },
    Blocking {
        name: "XREADGROUP",
        request: &["XREADGROUP", "GROUP", "g", "c", "BLOCK", "0", "STREAMS", "KEY", ">"],
        before: &["XGROUP", "CREATE", "KEY", "g", "$", "MKSTREAM"],
        push: STREAM,
    },
];

/// The commands that the engine has: BLMPOP and BZMPOP came with Redis 7.0.
pub(super) fn all() -> impl Iterator<Item = &'static Blocking> {
    let lacks = |name| Engine::here().is_before_7() && ["BLMPOP", "BZMPOP"].contains(&name);
    ALL.iter().filter(move |blocking| !lacks(blocking.name))
}

impl Blocking {
    pub(super) fn named(name: &str) -> &'static Self {
        ALL.iter().find(|blocking| blocking.name == name).unwrap()
    }

    /// Whether a client that reads the element takes it from the others.
    pub(super) fn takes(&self) -> bool {
        self.name != "XREAD"
    }

    /// The request with which the client waits.
    pub(super) fn request(&self, key: &str) -> Vec<u8> {
        command(&with_key(self.request, key))
    }

    /// Makes the key what it has to be before a client waits.
    pub(super) fn prepare(&self, direct: &mut Wire, key: &str) {
        if !self.before.is_empty() {
            direct.expect(&with_key(self.before, key), "+OK\r\n");
        }
    }

    /// Adds the element.
    pub(super) fn push(&self, direct: &mut Wire, key: &str) {
        let reply = direct.ask(&with_key(self.push, key));
        assert!(!reply.starts_with(b"-"), "{}", String::from_utf8_lossy(&reply));
    }

    /// Whether no client took the element.
    pub(super) fn is_kept(&self, direct: &mut Wire, key: &str) -> bool {
        match self.push[0] {
            "RPUSH" => direct.ask(&["LLEN", key]) == b":1\r\n",
            "ZADD" => direct.ask(&["ZCARD", key]) == b":1\r\n",
            _ if self.takes() => direct.ask(&["XPENDING", key, "g"]).starts_with(b"*4\r\n:0\r\n"),
            _ => true,
        }
    }
}

fn with_key(words: &[&str], key: &str) -> Vec<String> {
    let word = |word: &&str| match *word {
        "KEY" => key.to_owned(),
        "TO" => format!("{key}:to"),
        other => other.to_owned(),
    };
    words.iter().map(word).collect()
}
