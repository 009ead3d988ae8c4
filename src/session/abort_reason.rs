//! Why a session must end, though both sides are there: to go on would be to guess.

/// A reply could not be told from others, or what the client sent could not be understood: it might be handed a node's own
/// address, or a reply to AUTH of our own, or reach the server without a password.
#[derive(Debug, thiserror::Error)]
pub(super) enum AbortReason {
    #[error("a request that names connections or says who the client is, is too long")]
    TooLong,
    #[error("a reply that may name nodes is too long")]
    ReplyTooLong,
    #[error("more than {0} requests for nodes' addresses in one pipeline")]
    TooMany(u32),
    #[error("what the client sent before it authenticated is no RESP")]
    Unauthenticated,
    #[error("nodes' addresses were asked for, or RESET sent, where replies cannot be matched to requests")]
    Unmatched,
    #[error("a command in quotes may ask for nodes' addresses: quote its arguments alone")]
    Quoted,
}
