//! What a request means for its replies and its connection: how many replies come and when, and what changes once the server accepts it.

use super::command_table::{
    AddressReply, Command, Effect, Facts, Leaves, ReplyKind, Subscription, Transaction,
};

/// A request, classified by its replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    /// One prompt reply.
    #[default]
    Plain,
    /// One prompt reply. Unless it is an error, the request leaves this on the connection.
    Leaves(Leaves),
    /// One reply, after another client acts or a time has passed.
    Blocking,
    /// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE: one confirmation for each channel.
    Subscribe {
        /// What the client subscribes to.
        kind: Subscription,
        /// Number of channels named.
        count: u32,
    },
    /// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE.
    Unsubscribe {
        /// What the client unsubscribes from.
        kind: Subscription,
        /// Number of channels named. 0: all channels.
        count: u32,
    },
    /// HELLO.
    Hello {
        /// RESP3 (`true`) or RESP2. `None`: the protocol does not change.
        resp3: Option<bool>,
        /// What it leaves on the connection once the server accepts it.
        leaves: Leaves,
        /// A refused HELLO with options may have changed state. Servers set the name before they refuse a client that has to authenticate,
        /// and apply the first options before they refuse a later one (`helloCommand` in `networking.c`).
        has_options: bool,
    },
    /// AUTH: one prompt reply.
    Auth,
    /// RESET: back to RESP2, no subscriptions, no transaction.
    Reset,
    /// QUIT: one prompt reply, then the server closes. Later requests get no reply.
    Quit,
    /// HOST: and POST: no reply, and the server closes.
    Closes,
    /// MONITOR: a stream of all commands.
    Monitor,
    /// CLIENT REPLY.
    ReplyMode(ReplyMode),
    /// SYNC, PSYNC, REPLCONF: the replication stream follows.
    Replication,
    /// One prompt reply, which holds addresses of servers.
    Addresses(AddressReply),
    /// One prompt reply. The command is about a transaction.
    Transaction(Transaction),
    /// The name cannot be read, because it stands in quotes.
    Unknown,
}

/// The argument of CLIENT REPLY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// Replies are on again, from the one to this request.
    On,
    /// Replies are off, from the one to this request.
    Off,
    /// This request and the next get no reply.
    Skip,
}

impl Request {
    /// The request with these facts, unless an argument decides.
    pub(super) const fn with(facts: Facts) -> Self {
        if let ReplyKind::Blocking | ReplyKind::BlockingByOption = facts.reply {
            return Self::Blocking;
        }
        if let ReplyKind::Nodes(reply) = facts.reply {
            return Self::Addresses(reply);
        }
        match facts.effect {
            Effect::None => Self::Plain,
            Effect::Asking => Self::Leaves(Leaves::Asking),
            Effect::SetUp => Self::Leaves(Leaves::SetUp),
            Effect::UntilReset => Self::Leaves(Leaves::UntilReset),
            Effect::UntilClose => Self::Leaves(Leaves::UntilClose),
            Effect::Transaction(transaction) => Self::Transaction(transaction),
            Effect::Subscribe(kind) => Self::Subscribe { kind, count: 0 },
            Effect::Unsubscribe(kind) => Self::Unsubscribe { kind, count: 0 },
            Effect::Hello => Self::Hello { resp3: None, leaves: Leaves::SetUp, has_options: false },
            Effect::Auth => Self::Auth,
            Effect::Reset => Self::Reset,
            Effect::Quit => Self::Quit,
            Effect::Closes => Self::Closes,
            Effect::ReplyMode => Self::ReplyMode(ReplyMode::Off),
            Effect::Monitor => Self::Monitor,
            Effect::Replication => Self::Replication,
        }
    }

    /// The request with this command, whose arguments are not read. `words` counts its words, the name included.
    #[inline]
    pub(super) fn of(command: Command, words: u64) -> Self {
        let channels = || u32::try_from(words.saturating_sub(1)).unwrap_or(u32::MAX);
        match command.request() {
            Self::Subscribe { kind, .. } => Self::Subscribe { kind, count: channels() },
            Self::Unsubscribe { kind, .. } => Self::Unsubscribe { kind, count: channels() },
            request => request,
        }
    }

    /// The same request in a line with quotes, which may hide any word except an unquoted name.
    pub(super) fn in_quotes(self, name_is_known: bool) -> Self {
        match self {
            // The arguments do not change what the reply may name.
            Self::Addresses(AddressReply::Info | AddressReply::Role) if name_is_known => self,
            // The hidden word may ask for addresses of nodes.
            Self::Addresses(_) => Self::Unknown,
            _ if !name_is_known => Self::Unknown,
            // It gets one reply, but what it leaves on the connection is unknown.
            Self::Plain | Self::Leaves(_) => Self::Leaves(Leaves::UntilClose),
            Self::Quit | Self::Closes | Self::Blocking | Self::Auth | Self::Transaction(_) => self,
            _ => Self::Unknown,
        }
    }

    /// Whether replies may no longer match requests after this one.
    pub fn ends_counting(self) -> bool {
        matches!(
            self,
            Self::Subscribe { .. }
                | Self::Unsubscribe { .. }
                | Self::Monitor
                | Self::ReplyMode(_)
                | Self::Replication
                | Self::Unknown
        )
    }
}
