//! Executes the commands, and stores their keys.

use std::collections::HashMap;
use std::str;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use redis_protocol::resp2::types::BytesFrame as Reply;

/// Maximum number of keys. Further ones are refused with the error of a Redis out of memory.
const MAX_STORED_KEYS: usize = 10_000;

/// The keys and values, shared by all connections.
#[derive(Clone, Default)]
pub(super) struct Store(Arc<Mutex<HashMap<Vec<u8>, StoredValue>>>);

struct StoredValue {
    value: Vec<u8>,
    expires: Option<Instant>,
}

impl Store {
    /// Executes a command.
    pub(super) fn execute(&self, words: &[Vec<u8>]) -> Reply {
        let Some((name, arguments)) = words.split_first() else { return error("ERR empty command") };
        let name = String::from_utf8_lossy(name).to_uppercase();
        let mut entries = self.0.lock();
        let now = Instant::now();
        entries.retain(|_, entry| entry.expires.is_none_or(|at| at > now));
        match (name.as_str(), arguments) {
            ("PING", []) => Reply::SimpleString("PONG".into()),
            ("PING" | "ECHO", [text]) => bulk(text),
            ("SET", [key, value, options @ ..]) => set(&mut entries, key, value, options),
            ("GET", [key]) => entries.get(key).map_or(Reply::Null, |entry| bulk(&entry.value)),
            ("DEL", keys) => count(keys.iter().filter(|key| entries.remove(*key).is_some()).count()),
            ("EXISTS", keys) => count(keys.iter().filter(|key| entries.contains_key(*key)).count()),
            ("INCR", [key]) => increment(&mut entries, key),
            ("EXPIRE", [key, seconds]) => match (entries.get_mut(key), number(seconds)) {
                (_, None) => error("ERR value is not an integer or out of range"),
                (None, _) => count(0),
                (Some(entry), Some(seconds)) => {
                    entry.expires = Some(now + Duration::from_secs(seconds.unsigned_abs()));
                    count(1)
                }
            },
            ("TTL", [key]) => match entries.get(key) {
                None => Reply::Integer(-2),
                Some(StoredValue { expires: None, .. }) => Reply::Integer(-1),
                Some(StoredValue { expires: Some(at), .. }) => {
                    Reply::Integer(i64::try_from((*at - now).as_secs()).unwrap_or(i64::MAX))
                }
            },
            ("KEYS", [_]) => Reply::Array(entries.keys().map(|key| bulk(key)).collect()),
            ("DBSIZE", []) => count(entries.len()),
            ("INFO", _) => {
                bulk(b"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nos:pontoon demo\r\n")
            }
            ("COMMAND", _) => Reply::Array(Vec::new()),
            ("HELLO", _) => error("NOPROTO unsupported protocol version"),
            ("CLIENT" | "SELECT" | "QUIT", _) => ok(),
            _ => error(&format!("ERR unknown command '{}' in this demonstration", name.escape_default())),
        }
    }
}

fn set(entries: &mut HashMap<Vec<u8>, StoredValue>, key: &[u8], value: &[u8], options: &[Vec<u8>]) -> Reply {
    let mut expires = None;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let unit = match option.to_ascii_uppercase().as_slice() {
            b"EX" => 1000,
            b"PX" => 1,
            b"NX" if entries.contains_key(key) => return Reply::Null,
            b"XX" if !entries.contains_key(key) => return Reply::Null,
            b"NX" | b"XX" => continue,
            _ => return error("ERR syntax error"),
        };
        let Some(time @ 1..) = options.next().and_then(|text| number(text)) else {
            return error("ERR invalid expire time in 'set' command");
        };
        expires = Some(Instant::now() + Duration::from_millis(time.unsigned_abs().saturating_mul(unit)));
    }
    if entries.len() >= MAX_STORED_KEYS && !entries.contains_key(key) {
        return error("OOM command not allowed when used memory > 'maxmemory'");
    }
    entries.insert(key.to_vec(), StoredValue { value: value.to_vec(), expires });
    ok()
}

fn increment(entries: &mut HashMap<Vec<u8>, StoredValue>, key: &[u8]) -> Reply {
    let old = entries.get(key).map_or(Some(0), |entry| number(&entry.value));
    let Some(new) = old.and_then(|old| old.checked_add(1)) else {
        return error("ERR value is not an integer or out of range");
    };
    let entry = entries.entry(key.to_vec()).or_insert(StoredValue { value: Vec::new(), expires: None });
    entry.value = new.to_string().into_bytes();
    Reply::Integer(new)
}

fn number(text: &[u8]) -> Option<i64> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn ok() -> Reply {
    Reply::SimpleString("OK".into())
}

fn error(text: &str) -> Reply {
    Reply::Error(text.into())
}

fn bulk(bytes: &[u8]) -> Reply {
    Reply::BulkString(Bytes::copy_from_slice(bytes))
}

fn count(number: usize) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}
