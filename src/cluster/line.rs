//! Parses and prints a line of `CLUSTER NODES`, a format that `CLUSTER REPLICAS` uses, too: `<id> <ip:port@cport[,hostname[,aux=value]…]>
//! <flags> <primary> <ping> <pong> <epoch> <link> <slot>…`. Source: [CLUSTER NODES](https://redis.io/docs/latest/commands/cluster-nodes/).

use std::fmt;

/// The parts of a line that are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLine<'a> {
    pub(super) id: &'a str,
    pub(super) place: NodeLineAddress<'a>,
    /// Comma-separated.
    pub(super) flags: &'a str,
    /// Everything after the flags, unchanged.
    pub(super) rest: &'a str,
}

/// A node's address in a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeLineAddress<'a> {
    /// An IP address (IPv6 without brackets), or a name if the node announces one as its address. Empty if the node does not know its own
    /// address yet.
    pub(super) host: &'a str,
    /// 0 if there is none.
    pub(super) port: u16,
    /// The bus port; Redis 3 prints none.
    pub(super) bus: Option<&'a str>,
    /// A host name, possibly empty, and then named fields.
    pub(super) names: Option<&'a str>,
}

impl<'a> NodeLine<'a> {
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let (id, line) = line.split_once(' ')?;
        let (place, line) = line.split_once(' ')?;
        let (flags, rest) = line.split_once(' ')?;
        Some(Self { id, place: NodeLineAddress::parse(place)?, flags, rest })
    }

    pub(super) fn has_flag(&self, flag: &str) -> bool {
        self.flags.split(',').any(|has| has == flag)
    }

    /// Returns the primary's ID, the state of the link, and the slots, in the order of the line.
    pub(super) fn facts(&self) -> Option<(&'a str, &'a str, impl Iterator<Item = &'a str> + use<'a>)> {
        let mut fields = self.rest.split_ascii_whitespace();
        let primary = fields.next()?;
        // Skips ping, pong and epoch.
        let link = fields.nth(3)?;
        Some((primary, link, fields))
    }
}

impl<'a> NodeLineAddress<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (address, names) = match text.split_once(',') {
            Some((address, names)) => (address, Some(names)),
            None => (text, None),
        };
        let (address, bus) = match address.rsplit_once('@') {
            Some((address, bus)) => (address, Some(bus)),
            None => (address, None),
        };
        let (host, port) = host_and_port(address)?;
        Some(Self { host, port, bus, names })
    }

    /// Returns the host name, if there is one.
    pub(super) fn hostname(&self) -> Option<&'a str> {
        let first = self.names?.split(',').next()?;
        // No host name contains `=`. Without an empty name, the first part would be a named field.
        Some(first).filter(|name| !name.is_empty() && !name.contains('='))
    }
}

impl fmt::Display for NodeLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.id, self.place, self.flags, self.rest)
    }
}

impl fmt::Display for NodeLineAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)?;
        if let Some(bus) = self.bus {
            write!(f, "@{bus}")?;
        }
        self.names.map_or(Ok(()), |names| write!(f, ",{names}"))
    }
}

/// Splits at the last colon, because IPv6 addresses have no brackets.
fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    // Redis prints neither a sign nor leading zeros. Refuse them, because a line must be printed exactly as it was read.
    let plain = port.bytes().all(|byte| byte.is_ascii_digit()) && (port == "0" || !port.starts_with('0'));
    Some((host, port.parse().ok().filter(|_| plain)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn place(text: &str) -> NodeLineAddress<'_> {
        NodeLineAddress::parse(text).unwrap()
    }

    #[test]
    fn an_address_is_parsed_with_or_without_bus_port_and_name() {
        let full =
            NodeLineAddress { host: "10.0.0.1", port: 6379, bus: Some("16379"), names: Some("a.example") };
        assert_eq!(place("10.0.0.1:6379@16379,a.example"), full);
        assert_eq!(place("10.0.0.1:6379@16379"), NodeLineAddress { names: None, ..full });
        assert_eq!(place("10.0.0.1:6379"), NodeLineAddress { names: None, bus: None, ..full });
        assert_eq!(place("2001:db8::1:6379@16379").host, "2001:db8::1");
        assert_eq!(place(":0@0").host, "");
    }

    #[test]
    fn a_host_name_is_distinguished_from_the_fields_after_it() {
        assert_eq!(place("h:1@2,a.example,shard-id=ab").hostname(), Some("a.example"));
        assert_eq!(place("h:1@2,,shard-id=a:b@c").hostname(), None);
        assert_eq!(place("h:1@2,shard-id=ab").hostname(), None);
        assert_eq!(place("h:1@2").hostname(), None);
    }

    #[test]
    fn a_malformed_line_is_none() {
        for line in
            ["", "id", "id 1.2.3.4:1@2", "id 1.2.3.4 myself - 0", "id h:65536@1 - - 0", "id h:+1@1 - - 0"]
        {
            assert_eq!(NodeLine::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_line_is_printed_as_it_was_read(
            host in "[0-9a-f:.]{0,20}", port: u16, bus in proptest::option::of("[0-9]{0,5}"),
            names in proptest::option::of("[a-z.]{0,9}(,[a-z-]{1,5}=[!-+--~]{0,9}){0,3}"),
            rest in "[ -~]{0,60}"
        ) {
            let place = NodeLineAddress { host: &host, port, bus: bus.as_deref(), names: names.as_deref() };
            let line = NodeLine { id: "07c37dfe", place, flags: "myself,master", rest: &rest };
            let text = line.to_string();
            prop_assert_eq!(NodeLine::parse(&text), Some(line));
        }

        #[test]
        fn any_text_that_parses_is_printed_unchanged(text in "[a-f0-9:@,=. -]{0,60}") {
            if let Some(line) = NodeLine::parse(&text) {
                prop_assert_eq!(line.to_string(), text);
            }
        }
    }
}
