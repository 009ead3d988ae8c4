//! The columns of the table.

/// What commands are about, as the servers' documentation groups them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs, reason = "the labels say it")]
pub enum Family {
    Other,
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    Module,
    PubSub,
    Scripting,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
    VectorSet,
}

impl Family {
    /// All of them, in their order, as a metric's labels.
    pub const LABELS: [&str; 19] = [
        "other",
        "bitmap",
        "cluster",
        "connection",
        "generic",
        "geo",
        "hash",
        "hyperloglog",
        "list",
        "module",
        "pubsub",
        "scripting",
        "server",
        "set",
        "sorted_set",
        "stream",
        "string",
        "transactions",
        "vector_set",
    ];
}

/// What is known of a command, or of one with its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How it replies.
    pub reply: ReplyKind,
    /// What it does to its connection once the server accepts it.
    pub effect: Effect,
    /// Whether clients may share a connection for it.
    pub multiplexing: Multiplexing,
    /// Which of its arguments are read as they pass.
    pub arguments: Arguments,
    /// It may change data, or is passed on to replicas as if it did: WAIT waits for it.
    pub writes: bool,
}

/// How a command replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// One reply, as soon as the server has done the work.
    Prompt,
    /// One reply, once another client acts or a time has passed.
    Blocking,
    /// As `Blocking` with the option BLOCK, and as `Prompt` without it.
    BlockingByOption,
    /// One confirmation for each channel.
    Confirmations,
    /// Data that no request asks for follows.
    Stream,
    /// One prompt reply, which holds addresses of a cluster's nodes.
    Nodes(ClusterReply),
}

/// A reply that holds addresses of a cluster's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClusterReply {
    /// CLUSTER SLOTS.
    Slots,
    /// CLUSTER SHARDS.
    Shards,
    /// CLUSTER NODES.
    Nodes,
    /// CLUSTER REPLICAS, or SLAVES.
    Replicas,
}

/// What a command does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that another client could see.
    None,
    /// The command after it may use a slot that is being imported.
    Asking,
    /// Sets the database or a name.
    SetUp,
    /// What RESET undoes.
    UntilReset,
    /// What nothing undoes for certain.
    UntilClose,
    /// Begins, ends or prepares a transaction.
    Transaction(Transaction),
    /// Subscribes.
    Subscribe(Subscription),
    /// Ends subscriptions.
    Unsubscribe(Subscription),
    /// Sets the protocol, and may authenticate and set a name.
    Hello,
    /// Authenticates.
    Auth,
    /// Undoes most of what others did.
    Reset,
    /// The server closes after its reply.
    Quit,
    /// The server closes without a reply.
    Closes,
    /// Switches replies off or on.
    ReplyMode,
    /// Every command of the server follows.
    Monitor,
    /// The replication stream follows.
    Replication,
}

/// What a command leaves with its connection, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaves {
    /// The command after it may use a slot that is being imported.
    Asking,
    /// Protocol, database or names, which can be set up on another connection, too.
    SetUp,
    /// A user, until RESET.
    Authenticated,
    /// Subscriptions of a RESP3 connection, until RESET.
    Subscribed,
    /// What else RESET undoes.
    UntilReset,
    /// What nothing undoes for certain.
    UntilClose,
}

/// What can be subscribed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscription {
    /// SUBSCRIBE.
    Channel,
    /// PSUBSCRIBE.
    Pattern,
    /// SSUBSCRIBE.
    Shard,
}

/// What a command does to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    /// MULTI.
    Begins,
    /// EXEC: answered by the replies to all that was queued.
    Executes,
    /// DISCARD.
    Ends,
    /// WATCH: refused between MULTI and EXEC, and not queued (`processCommand` in `server.c`).
    Watches,
    /// UNWATCH.
    Unwatches,
}

/// Whether clients may share a connection for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplexing {
    /// They may: it is sent as it is.
    Shared,
    /// They may, by code of its own in `session::shared::setting_up`: pontoon keeps what it sets up for each client, and picks a connection
    /// that is set up so. Without such code the client gets a dedicated connection.
    PerClient,
    /// The client needs a dedicated connection.
    Dedicated(PinReason),
    /// The table lacks the command: the server is asked what it is.
    Unknown,
}

/// Why a command needs a dedicated connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinReason {
    /// It may hold up its connection for long, and all clients with it.
    Blocking,
    /// It stops a script: the server takes it while it refuses most other commands.
    Kill,
    /// It asks what became of this connection's writes.
    Wait,
    /// It reads or changes connections, or the server.
    Administration,
    /// Its state lasts until the transaction ends.
    Transaction,
    /// It applies to the command after it.
    Asking,
    /// Its state stays with the connection.
    ConnectionState,
    /// It authenticates.
    Auth,
}

impl PinReason {
    /// The reason as a metric label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Blocking => "blocking",
            Self::Kill => "kill",
            Self::Wait => "wait",
            Self::Administration => "administration",
            Self::Transaction => "transaction",
            Self::Asking => "asking",
            Self::ConnectionState => "connection_state",
            Self::Auth => "auth",
        }
    }
}

/// Which arguments of a command are read as they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// None.
    Ignored,
    /// The first two.
    Words,
    /// CLIENT's: the subcommand, names and versions.
    Client,
    /// HELLO's: the version and the name.
    Hello,
    /// Those of XREAD and XREADGROUP up to STREAMS.
    Streams,
}
