//! AUTH again, on a connection that has a client: after the client's RESET, which makes a server forget who we are; and in
//! time before ElastiCache cuts a connection that authenticated with IAM, 12 hours after it did
//! ([Authenticating with IAM](https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html)).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::context::RouteContext;
use crate::credentials::{Credentials, Login, NoSecret};
use crate::endpoint::Endpoint;
use crate::upstream;

/// After a refusal, while the connection still lives.
const RELOGIN_RETRY: Duration = Duration::from_secs(60);

type Logins = Pin<Box<dyn Future<Output = Result<Vec<Login>, NoSecret>> + Send>>;

pub(super) struct Relogin {
    credentials: Arc<Credentials>,
    due: Option<Pin<Box<Sleep>>>,
    logins: Option<Logins>,
    /// To be tried if the one before is refused.
    others: Vec<Login>,
    /// The client's next request must wait for it.
    urgent: bool,
    /// It was due, and could not be done: counted once.
    left_alone: bool,
}

impl Relogin {
    /// `since`: pontoon authenticated then.
    pub(super) fn new(credentials: &Arc<Credentials>, since: Option<Instant>) -> Self {
        let mut relogin = Self {
            credentials: Arc::clone(credentials),
            due: None,
            logins: None,
            others: Vec::new(),
            urgent: false,
            left_alone: false,
        };
        relogin.schedule(since.unwrap_or_else(Instant::now));
        relogin
    }

    fn schedule(&mut self, since: Instant) {
        // Many sessions that began together do not all do it at once.
        let interval =
            self.credentials.renewal().map(|interval| interval.mul_f64(1.0 - fastrand::f64() / 10.0));
        self.due = interval.map(|interval| Box::pin(sleep_until(since + interval)));
    }

    /// When it is due; `None`: it is under way, or never will be.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.as_ref().map(|due| due.deadline())
    }

    /// The client sent RESET.
    pub(super) fn after_reset(&mut self) {
        self.urgent = true;
        self.fetch();
    }

    fn fetch(&mut self) {
        let credentials = Arc::clone(&self.credentials);
        self.logins = Some(Box::pin(async move { credentials.logins().await }));
    }

    /// Whether the client's next request must wait.
    #[inline]
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether it is time, and can be done now. `safe`: between two requests, outside of transactions, and all replies due
    /// come soon. `impossible`: it will never be safe.
    pub(super) fn is_due(
        &mut self,
        cx: &mut Context<'_>,
        safe: bool,
        impossible: bool,
        route: &RouteContext,
    ) -> bool {
        if self.logins.is_some() {
            return self.urgent || safe;
        }
        let Some(due) = &mut self.due else { return false };
        if due.as_mut().poll(cx).is_pending() {
            return false;
        }
        if impossible && !std::mem::replace(&mut self.left_alone, true) {
            route.metrics.reauthenticated("impossible");
        }
        if safe {
            self.due = None;
            self.fetch();
        }
        safe
    }

    /// AUTH, once there is something to present.
    pub(super) fn poll_command(
        &mut self,
        cx: &mut Context<'_>,
        route: &RouteContext,
    ) -> Option<Zeroizing<Vec<u8>>> {
        let logins = match self.logins.as_mut()?.as_mut().poll(cx) {
            Poll::Pending => return None,
            Poll::Ready(logins) => logins,
        };
        self.logins = None;
        // Until it is answered: nothing that the client sends then can make its reply uncountable.
        self.urgent = true;
        match logins {
            Ok(mut logins) => {
                self.others = logins.split_off(1.min(logins.len()));
                logins.first().map(upstream::login_command)
            }
            Err(problem) => {
                self.urgent = false;
                if let Some(suppressed) = route.throttle.allow("reauthentication") {
                    let route = &*route.route;
                    warn!(route, suppressed, "a session cannot authenticate again: {problem}");
                }
                let mut due = Box::pin(sleep_until(Instant::now() + RELOGIN_RETRY));
                let _ = due.as_mut().poll(cx);
                self.due = Some(due);
                None
            }
        }
    }

    /// The server answered.
    pub(super) fn answered(&mut self, accepted: bool, route: &RouteContext, endpoint: &Endpoint) {
        if !accepted && !self.others.is_empty() {
            // The server has not been told of the newest secret yet.
            let others = std::mem::take(&mut self.others);
            self.logins = Some(Box::pin(std::future::ready(Ok(others))));
            return;
        }
        self.urgent = false;
        route.metrics.reauthenticated(if accepted { "ok" } else { "refused" });
        if accepted {
            debug!(route = &*route.route, upstream = %endpoint, "authenticated again");
            return self.schedule(Instant::now());
        }
        if let Some(suppressed) = route.throttle.allow("reauthentication") {
            warn!(
                route = &*route.route,
                upstream = %endpoint,
                suppressed,
                "a session could not authenticate again as {}: the server refused",
                self.credentials.user()
            );
        }
        self.due = Some(Box::pin(sleep_until(Instant::now() + RELOGIN_RETRY)));
    }
}
