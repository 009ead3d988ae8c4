//! The columns of the command table.

/// Groups of commands, as the servers' documentation has them.
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
    /// The labels of metrics, in the order of the variants.
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

/// What is known about a command, or about a command with its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// How the server replies.
    pub reply: ReplyKind,
    /// What it does to its connection once the server accepts it.
    pub effect: Effect,
    /// Whether clients may share a connection for it.
    pub multiplexing: Multiplexing,
    /// Which of its arguments are read as they pass.
    pub arguments: Arguments,
    /// The command may change data, or is replicated as if it did, so that WAIT waits for it.
    pub writes: bool,
}

/// How the server replies to a command.
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
    /// A stream of data that no request asks for.
    Stream,
    /// One prompt reply, which holds addresses of servers.
    Nodes(AddressReply),
}

/// A form of reply that holds addresses of servers: of a cluster's nodes, or of the group that sentinels watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressReply {
    /// CLUSTER SLOTS.
    Slots,
    /// CLUSTER SHARDS.
    Shards,
    /// CLUSTER NODES.
    Nodes,
    /// CLUSTER REPLICAS or CLUSTER SLAVES.
    Replicas,
    /// INFO.
    Info,
    /// ROLE.
    Role,
    /// SENTINEL GET-MASTER-ADDR-BY-NAME: the address of any group's primary.
    SentinelAddress,
    /// The same about the group that the route leads to.
    PrimaryAddress,
    /// SENTINEL MASTERS, REPLICAS, SENTINELS and others: each server as a map of fields.
    SentinelServers,
    /// SENTINEL INFO-CACHE: replies to INFO.
    SentinelInfo,
}

impl AddressReply {
    /// All forms.
    pub const ALL: [Self; 10] = [
        Self::Slots,
        Self::Shards,
        Self::Nodes,
        Self::Replicas,
        Self::Info,
        Self::Role,
        Self::SentinelAddress,
        Self::PrimaryAddress,
        Self::SentinelServers,
        Self::SentinelInfo,
    ];

    /// Whether clients use it to find nodes. Such a reply is never passed on with addresses of nodes. INFO and ROLE describe replication:
    /// they are passed on unchanged if pontoon cannot recognize them among other replies, because a session without them is worse.
    #[inline]
    pub fn leads_clients(self) -> bool {
        !matches!(self, Self::Info | Self::Role)
    }
}

/// What a command does to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that another client could see.
    None,
    /// Lets the next command use a slot that is being imported.
    Asking,
    /// Sets the database or a name.
    SetUp,
    /// Sets state that RESET undoes.
    UntilReset,
    /// Sets state that nothing undoes for certain.
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
    /// Undoes most effects of other commands.
    Reset,
    /// Makes the server close after its reply.
    Quit,
    /// Makes the server close without a reply.
    Closes,
    /// Switches replies off or on.
    ReplyMode,
    /// Starts a stream of every command that the server runs.
    Monitor,
    /// Starts the replication stream.
    Replication,
}

/// What a command leaves on its connection, in ascending order of weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaves {
    /// The next command may use a slot that is being imported.
    Asking,
    /// Protocol, database or names, which can also be set up on another connection.
    SetUp,
    /// The client's own user, until RESET.
    Authenticated,
    /// Subscriptions of a RESP3 connection, until RESET.
    Subscribed,
    /// Other state that RESET undoes.
    UntilReset,
    /// State that nothing undoes for certain.
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
    /// EXEC. Its reply contains the replies to all queued commands.
    Executes,
    /// DISCARD.
    Ends,
    /// WATCH. Between MULTI and EXEC, servers refuse it and do not queue it (`processCommand` in `server.c`).
    Watches,
    /// UNWATCH.
    Unwatches,
}

/// Whether clients may share a connection for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplexing {
    /// They may share one. The command is sent unchanged.
    Shared,
    /// They may, with code of its own in `session::shared::setting_up`. Pontoon stores what the command sets up for each client, and picks
    /// a connection with the same state. Without such code the client gets a dedicated connection.
    PerClient,
    /// The client needs a dedicated connection.
    Dedicated(PinReason),
    /// The table lacks the command. Pontoon asks the server about it.
    Unknown,
}

/// Why a command needs a dedicated connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PinReason {
    /// It may hold up its connection, and all clients of it, for a long time.
    Blocking,
    /// It stops a script. The server accepts it while it refuses most other commands.
    Kill,
    /// It waits for replicas to receive the writes of this connection.
    Wait,
    /// It reads or changes connections or the server.
    Administration,
    /// Its state lasts until the transaction ends.
    Transaction,
    /// It applies to the next command.
    Asking,
    /// Its state stays on the connection.
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

/// The arguments of a command that are read as they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// No argument.
    Ignored,
    /// The first two arguments.
    Words,
    /// The subcommand of CLIENT, names and versions.
    Client,
    /// The version and the name in HELLO.
    Hello,
    /// The arguments of XREAD and XREADGROUP up to STREAMS.
    Streams,
}
