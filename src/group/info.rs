//! What `INFO` says: `field:value` lines.

/// The text of an `INFO` reply.
#[derive(Debug, Clone, Copy)]
pub struct Info<'a>(pub &'a str);

impl<'a> Info<'a> {
    /// A field's value, wherever it stands.
    pub fn field(&self, name: &str) -> Option<&'a str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// The values of fields that are numbered: of `name0`, `name1` and so on.
    pub fn fields(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.lines().filter_map(move |line| {
            let (number, value) = line.strip_prefix(name)?.split_once(':')?;
            (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| value.trim())
        })
    }

    /// A field's value, if it is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.parse().ok()
    }

    /// Engine and version. Valkey tells its own version beside the Redis version that it is compatible with.
    pub fn engine(&self) -> Option<(&'static str, &'a str)> {
        let valkey = self.field("valkey_version").map(|version| ("Valkey", version));
        valkey.or_else(|| self.field("redis_version").map(|version| ("Redis", version)))
    }

    /// `standalone`, `cluster` or `sentinel`.
    pub fn mode(&self) -> Option<&'a str> {
        self.field("redis_mode").or_else(|| self.field("server_mode"))
    }

    /// Engine, version and mode, in a line.
    pub fn describe(&self) -> String {
        let engine = self
            .engine()
            .map_or_else(|| "engine not known".to_owned(), |(name, version)| format!("{name} {version}"));
        match self.mode() {
            Some(mode) => format!("{engine}, {mode}"),
            None => engine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_is_told_by_its_own_version() {
        let valkey = "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nredis_mode:cluster\r\n";
        assert_eq!(Info(valkey).describe(), "Valkey 8.0.1, cluster");
        assert_eq!(
            Info("redis_version:7.0.15\r\nredis_mode:standalone\r\n").describe(),
            "Redis 7.0.15, standalone"
        );
        assert_eq!(Info("").describe(), "engine not known");
    }
}
