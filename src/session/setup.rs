//! What a client set up on its connection as it began: protocol, database, names. It can be set up the same on another one,
//! so a session that did no more than that can be moved.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::user::ClientUser;
use crate::resp::arguments::MAX_CLIENT_INFO;
use crate::resp::client_requests::marked;
use crate::resp::replies::encode_command;
use crate::upstream::{self, Connection};

/// A connection that is not set up in this time is not used.
pub(super) const SETUP_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct ClientSetup {
    pub(super) key: SharingKey,
    pub(super) name: Vec<u8>,
    pub(super) library: Vec<u8>,
    pub(super) version: Vec<u8>,
}

/// What a client can see of a connection: clients share those that are the same in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct SharingKey {
    pub(super) resp3: bool,
    pub(super) database: u32,
    /// READONLY.
    pub(super) replica: bool,
    /// Who it is to the server, where that is kept.
    pub(super) user: Option<Arc<ClientUser>>,
}

/// A command that sets up.
pub(super) struct SetupStep {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    /// Older engines do not know it, and said so to the client, too.
    pub(super) may_fail: bool,
}

/// Sets a connection up. The error is the server's, if it was that which refused.
pub(super) async fn set_up(connection: &mut Connection, steps: &[SetupStep]) -> Result<(), Option<Vec<u8>>> {
    for SetupStep { bytes, may_fail } in steps {
        let reply = upstream::ask_frame(connection, bytes).await.map_err(|_| None)?;
        if reply.starts_with(b"-") && !may_fail {
            return Err(Some(reply));
        }
    }
    Ok(())
}

impl ClientSetup {
    /// The same without what only others can see.
    pub(super) fn of_the_client(&self) -> Self {
        Self { library: Vec::new(), version: Vec::new(), ..self.clone() }
    }

    /// What to send on a new connection. `None`: a part of it was too long to be kept, or is no text.
    pub(super) fn steps(&self) -> Option<Vec<SetupStep>> {
        let text = |bytes: &[u8]| {
            // One that was cut has this length.
            (bytes.len() != MAX_CLIENT_INFO).then(|| String::from_utf8(bytes.to_vec()).ok()).flatten()
        };
        let (name, library, version) = (text(&self.name)?, text(&self.library)?, text(&self.version)?);
        let authenticates =
            |user: &Arc<ClientUser>| SetupStep { bytes: user.auth().clone(), may_fail: false };
        let mut steps: Vec<SetupStep> = self.key.user.iter().map(authenticates).collect();
        let mut step = |needed: bool, may_fail: bool, words: &[&str]| {
            if needed {
                steps.push(SetupStep { bytes: encode_command(words).into(), may_fail });
            }
        };
        step(self.key.resp3, false, &["HELLO", "3"]);
        let marked = String::from_utf8_lossy(&marked(library.as_bytes())).into_owned();
        step(!library.is_empty(), true, &["CLIENT", "SETINFO", "LIB-NAME", &marked]);
        step(!version.is_empty(), true, &["CLIENT", "SETINFO", "LIB-VER", &version]);
        step(!name.is_empty(), false, &["CLIENT", "SETNAME", &name]);
        step(self.key.database != 0, false, &["SELECT", &self.key.database.to_string()]);
        step(self.key.replica, false, &["READONLY"]);
        Some(steps)
    }

    /// The server has accepted RESET.
    pub(super) fn reset(&mut self) {
        let (library, version) = (std::mem::take(&mut self.library), std::mem::take(&mut self.version));
        *self = Self { library, version, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_set_up_is_set_up_again_and_the_user_and_the_protocol_come_first() {
        assert!(ClientSetup::default().steps().unwrap().is_empty());
        let user = ClientUser::of(&[b"app", b"secret"]).map(Arc::new);
        let key = SharingKey { resp3: true, database: 3, user, ..SharingKey::default() };
        let setup = ClientSetup { key, name: b"shop".into(), ..ClientSetup::default() };
        let steps: Vec<u8> = setup.steps().unwrap().iter().flat_map(|step| step.bytes.to_vec()).collect();
        let expected = [
            encode_command(&["AUTH", "app", "secret"]),
            encode_command(&["HELLO", "3"]),
            encode_command(&["CLIENT", "SETNAME", "shop"]),
            encode_command(&["SELECT", "3"]),
        ];
        assert_eq!(steps, expected.concat());
    }

    #[test]
    fn the_name_of_a_library_is_set_up_with_the_mark() {
        let setup = ClientSetup { library: b"redis-py(rq_v1)".into(), ..ClientSetup::default() };
        let steps = setup.steps().unwrap();
        let expected = encode_command(&["CLIENT", "SETINFO", "LIB-NAME", "redis-py(rq_v1;pontoon)"]);
        assert_eq!(*steps[0].bytes, expected);
    }

    #[test]
    fn what_was_cut_or_is_no_text_is_not_set_up_wrongly() {
        assert!(
            ClientSetup { name: vec![b'x'; MAX_CLIENT_INFO], ..ClientSetup::default() }.steps().is_none()
        );
        assert!(ClientSetup { name: vec![0xff], ..ClientSetup::default() }.steps().is_none());
    }
}
