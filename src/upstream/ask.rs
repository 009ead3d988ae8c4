//! Questions to a server that pontoon has itself.

use super::connection::Connection;
use super::error::Cause;
use super::greeting;
use crate::resp::replies::{self, Answer};

/// A line of CLUSTER NODES may have several KiB where slots are scattered; a cluster has at most 1,000 nodes.
const LONGEST_TOPOLOGY: usize = 16 * 1024 * 1024;

/// Asks one thing of an upstream, for a check.
pub async fn ask(connection: &mut Connection, command: &[&str]) -> Result<Answer, Cause> {
    connection.send(&replies::encode_command(command)).await?;
    greeting::next_answer(connection).await?.ok_or(Cause::Closed)
}

/// Sends a command and reads its reply. Whether that is no error.
pub async fn ask_encoded(connection: &mut Connection, command: &[u8]) -> Result<bool, Cause> {
    connection.send(command).await?;
    let reply = greeting::next_frame(connection, LONGEST_TOPOLOGY).await?;
    Ok(!reply.starts_with(b"-"))
}

/// Sends a command and returns its reply.
pub async fn ask_frame(connection: &mut Connection, command: &[u8]) -> Result<Vec<u8>, Cause> {
    connection.send(command).await?;
    greeting::next_frame(connection, LONGEST_TOPOLOGY).await
}

/// What a node says of its cluster: its replies, in RESP2.
pub struct TopologyReplies {
    /// To CLUSTER SLOTS.
    pub slots: Vec<u8>,
    /// To CLUSTER NODES.
    pub nodes: Vec<u8>,
}

/// Asks a node for its cluster. There is no deadline in it.
pub async fn topology(connection: &mut Connection) -> Result<TopologyReplies, Cause> {
    let commands =
        [["CLUSTER", "SLOTS"], ["CLUSTER", "NODES"]].map(|command| replies::encode_command(&command));
    connection.send(&commands.concat()).await?;
    let slots = greeting::next_frame(connection, LONGEST_TOPOLOGY).await?;
    Ok(TopologyReplies { slots, nodes: greeting::next_frame(connection, LONGEST_TOPOLOGY).await? })
}
