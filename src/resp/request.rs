//! What a request means for its replies and its connection: how many replies come and when, and what changes once the server
//! accepts it.

use super::command_table::{
    ClusterReply, Command, Effect, Facts, Leaves, ReplyKind, Subscription, Transaction,
};

/// A request, as far as its replies go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Request {
    /// One prompt reply.
    #[default]
    Plain,
    /// One prompt reply; if it is no error, the request leaves this with the connection.
    Leaves(Leaves),
    /// One reply, once another client acts or a time has passed.
    Blocking,
    /// SUBSCRIBE and its kin: as many confirmations as channels.
    Subscribe {
        /// To what.
        kind: Subscription,
        /// Channels named.
        count: u32,
    },
    /// UNSUBSCRIBE and its kin.
    Unsubscribe {
        /// From what.
        kind: Subscription,
        /// Channels named; 0: from all.
        count: u32,
    },
    /// HELLO.
    Hello {
        /// RESP3, or RESP2; `None`: the protocol stays as it is.
        resp3: Option<bool>,
        /// What it leaves once the server accepts it.
        leaves: Leaves,
        /// With options it may have done something before the server refused it: servers set the name before they ask for AUTH, and do
        /// what the first options want before they refuse a later one (`helloCommand` in `networking.c`).
        has_options: bool,
    },
    /// AUTH: one prompt reply.
    Auth,
    /// RESET: back to RESP2, no subscriptions, no transaction.
    Reset,
    /// QUIT: one prompt reply, and the server closes. Later requests get no reply.
    Quit,
    /// HOST: and POST: no reply, and the server closes.
    Closes,
    /// MONITOR: a stream of its own.
    Monitor,
    /// CLIENT REPLY.
    ReplyMode(ReplyMode),
    /// SYNC, PSYNC, REPLCONF: the replication stream follows.
    Replication,
    /// One prompt reply, which holds addresses of a cluster's nodes.
    Cluster(ClusterReply),
    /// One prompt reply; about a transaction.
    Transaction(Transaction),
    /// The name cannot be read: it stands in quotes.
    Unknown,
}

/// CLIENT REPLY's argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// Replies come again, beginning with the one to this request.
    On,
    /// No replies, for this or any later request.
    Off,
    /// No reply for this request and the next.
    Skip,
}

impl Request {
    /// A request with these facts, as long as no argument decides.
    pub(super) const fn with(facts: Facts) -> Self {
        if let ReplyKind::Blocking | ReplyKind::BlockingByOption = facts.reply {
            return Self::Blocking;
        }
        if let ReplyKind::Nodes(reply) = facts.reply {
            return Self::Cluster(reply);
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

    /// A request with this command, whose arguments are not read, and with `words` words, its name among them.
    #[inline]
    pub(super) fn of(command: Command, words: u64) -> Self {
        let channels = || u32::try_from(words.saturating_sub(1)).unwrap_or(u32::MAX);
        match command.request() {
            Self::Subscribe { kind, .. } => Self::Subscribe { kind, count: channels() },
            Self::Unsubscribe { kind, .. } => Self::Unsubscribe { kind, count: channels() },
            request => request,
        }
    }

    /// The same request in a line with quotes, which may hide any word but an unquoted name.
    pub(super) fn in_quotes(self, name_is_known: bool) -> Self {
        match self {
            // It may ask for nodes' addresses.
            Self::Cluster(_) => Self::Unknown,
            _ if !name_is_known => Self::Unknown,
            // It gets one reply; but what it leaves behind cannot be told.
            Self::Plain | Self::Leaves(_) => Self::Leaves(Leaves::UntilClose),
            Self::Quit | Self::Closes | Self::Blocking | Self::Auth | Self::Transaction(_) => self,
            _ => Self::Unknown,
        }
    }

    /// Whether replies cannot be matched to requests after this one, or not always.
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
