//! Why a session must end although client and upstream are connected: continuing would mean guessing.

/// Why a session is aborted. If it continued, the client could receive a node's own address or the reply to pontoon's AUTH, or requests
/// could reach the server without a password.
#[derive(Debug, thiserror::Error)]
pub(super) enum AbortReason {
    #[error("a request that pontoon must read whole is too long")]
    TooLong,
    #[error("a reply that may hold addresses of nodes is too long")]
    ReplyTooLong,
    #[error("more than {0} requests for addresses of nodes in one pipeline")]
    TooMany(u32),
    #[error("the client sent bytes that are not RESP before it authenticated")]
    Unauthenticated,
    #[error(
        "the client requested addresses of nodes, or sent RESET, while replies cannot be matched to requests"
    )]
    Unmatched,
    #[error(
        "a command in quotes may request addresses of nodes: send its name and subcommand without quotes"
    )]
    Quoted,
}
