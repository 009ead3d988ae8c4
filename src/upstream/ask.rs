//! Requests that pontoon itself sends to a server, for example to learn a cluster's topology.

use super::connection::Connection;
use super::error::Cause;
use super::greeting;
use crate::resp::replies::{self, Answer};
use crate::resp::value::Value;

/// Size limit of a topology reply. A line of CLUSTER NODES can take several KiB where slots are scattered; a cluster has at most 1,000
/// nodes.
const LONGEST_TOPOLOGY: usize = 16 * 1024 * 1024;

/// Sends one command and returns its reply.
pub async fn ask(connection: &mut Connection, command: &[&str]) -> Result<Answer, Cause> {
    connection.send(&replies::encode_command(command)).await?;
    greeting::next_answer(connection).await?.ok_or(Cause::Closed)
}

/// Sends a command and reads its reply. Returns whether the reply is not an error.
pub async fn ask_encoded(connection: &mut Connection, command: &[u8]) -> Result<bool, Cause> {
    connection.send(command).await?;
    let reply = greeting::next_frame(connection, LONGEST_TOPOLOGY).await?;
    Ok(!reply.starts_with(b"-"))
}

/// Sends a command and returns its reply as bytes.
pub async fn ask_frame(connection: &mut Connection, command: &[u8]) -> Result<Vec<u8>, Cause> {
    connection.send(command).await?;
    greeting::next_frame(connection, LONGEST_TOPOLOGY).await
}

/// A node's replies about its cluster, in RESP2.
pub struct TopologyReplies {
    /// The reply to CLUSTER SLOTS.
    pub slots: Vec<u8>,
    /// The reply to CLUSTER NODES.
    pub nodes: Vec<u8>,
}

/// Asks a node for its cluster's topology. The caller sets the deadline.
pub async fn topology(connection: &mut Connection) -> Result<TopologyReplies, Cause> {
    let [slots, nodes] = ask_frames(connection, [&["CLUSTER", "SLOTS"], &["CLUSTER", "NODES"]]).await?;
    Ok(TopologyReplies { slots, nodes })
}

/// Asks for a field of the reply to [HELLO](https://valkey.io/commands/hello/), which users may send without further permissions. `None`: the
/// server does not say.
pub async fn hello_field(connection: &mut Connection, name: &str) -> Result<Option<String>, Cause> {
    let [hello] = ask_frames(connection, [&["HELLO"]]).await?;
    let hello = Value::parse(&hello).map_err(|unreadable| Cause::NotRedis(unreadable.to_string()))?;
    Ok(hello.field(name).and_then(Value::text).map(str::to_owned))
}

/// The role that a server reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerRole {
    /// It accepts writes.
    Primary,
    /// It copies another server.
    Replica,
    /// It refuses to say.
    Unknown,
}

/// Asks a server for its role. HELLO needs no permission; only servers before Redis 6 are asked by ROLE.
pub async fn role(connection: &mut Connection) -> Result<ServerRole, Cause> {
    let role = if let Some(role) = hello_field(connection, "role").await? {
        role
    } else {
        let reply = ask_frame(connection, &replies::encode_command(&["ROLE"])).await?;
        // The role follows the header of the array and its own length.
        let role = reply.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
        String::from_utf8_lossy(role.trim_ascii_end()).into_owned()
    };
    Ok(match role.as_str() {
        "master" => ServerRole::Primary,
        "replica" | "slave" => ServerRole::Replica,
        _ => ServerRole::Unknown,
    })
}

/// Sends commands at once, and returns each reply as bytes.
pub async fn ask_frames<const N: usize>(
    connection: &mut Connection,
    commands: [&[&str]; N],
) -> Result<[Vec<u8>; N], Cause> {
    connection.send(&commands.map(replies::encode_command).concat()).await?;
    let mut frames = [const { Vec::new() }; N];
    for frame in &mut frames {
        *frame = next_frame(connection).await?;
    }
    Ok(frames)
}

/// Returns the next reply or message as bytes. If the caller stops waiting, nothing of it is lost.
pub async fn next_frame(connection: &mut Connection) -> Result<Vec<u8>, Cause> {
    greeting::next_frame(connection, LONGEST_TOPOLOGY).await
}
