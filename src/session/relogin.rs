//! Sends AUTH again on a connection that has a client. Pontoon does so after the client's RESET, which logs the connection out. It also
//! does so before ElastiCache closes a connection that authenticated with IAM, which happens after 12 hours ([Authenticating with
//! IAM](https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/auth-iam.html)), and before the end of a password that has one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::context::RouteContext;
use crate::credentials::{Credentials, Expiry, Login, NoSecret};
use crate::endpoint::Endpoint;
use crate::upstream;

/// How long to wait after a first failure, while the connection still works. The wait doubles with each further one.
const RELOGIN_RETRY: Duration = Duration::from_secs(1);

/// The longest wait after a failure.
const MAX_RELOGIN_RETRY: Duration = Duration::from_secs(60);

type Logins = Pin<Box<dyn Future<Output = Result<Vec<Login>, NoSecret>> + Send>>;

pub(super) struct Relogin {
    credentials: Arc<Credentials>,
    due: Option<Pin<Box<Sleep>>>,
    logins: Option<Logins>,
    /// Logins to try if the server refuses the present one.
    others: Vec<Login>,
    /// The end of the login that was sent.
    sent: Option<Expiry>,
    /// The wait after the next failure.
    retry: Duration,
    /// The client's next request must wait for the login.
    urgent: bool,
    /// The login was due and could not be sent. This is counted once.
    left_alone: bool,
}

impl Relogin {
    /// `since`: when pontoon authenticated. `expiry`: the end of that login.
    pub(super) fn new(
        credentials: &Arc<Credentials>,
        since: Option<Instant>,
        expiry: Option<Expiry>,
    ) -> Self {
        let mut relogin = Self {
            credentials: Arc::clone(credentials),
            due: None,
            logins: None,
            others: Vec::new(),
            sent: None,
            retry: RELOGIN_RETRY,
            urgent: false,
            left_alone: false,
        };
        let expires = expiry.map(|expiry| expiry.reauthentication());
        relogin.schedule(since.unwrap_or_else(Instant::now), expires);
        relogin
    }

    /// `expires`: when the login must be replaced because it ends.
    fn schedule(&mut self, since: Instant, expires: Option<Instant>) {
        // Spreads the logins of sessions that began together.
        let interval =
            self.credentials.renewal().map(|interval| interval.mul_f64(1.0 - fastrand::f64() / 10.0));
        let due = interval.map(|interval| since + interval).into_iter().chain(expires).min();
        self.due = due.map(|due| Box::pin(sleep_until(due)));
    }

    fn schedule_retry(&mut self) {
        self.due = Some(Box::pin(sleep_until(Instant::now() + self.retry)));
        self.retry = (self.retry * 2).min(MAX_RELOGIN_RETRY);
    }

    /// When the next login is due. `None`: it is under way, or never due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.as_ref().map(|due| due.deadline())
    }

    /// Begins a login because the client sent RESET.
    pub(super) fn after_reset(&mut self) {
        self.urgent = true;
        let credentials = Arc::clone(&self.credentials);
        self.logins = Some(Box::pin(async move { credentials.logins().await }));
    }

    /// Whether the client's next request must wait.
    #[inline]
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether a login is due and can be sent now. `safe`: the session is between two requests, outside of transactions, and all
    /// outstanding replies come promptly. `impossible`: it will never be safe.
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
            let credentials = Arc::clone(&self.credentials);
            self.logins = Some(Box::pin(async move { credentials.renewed_logins().await }));
        }
        safe
    }

    /// The AUTH command, once credentials are available.
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
        // The client's requests wait for the reply, because they could make it impossible to match.
        self.urgent = true;
        match logins {
            Ok(mut logins) => {
                self.others = logins.split_off(1.min(logins.len()));
                self.sent = logins.first().and_then(|login| login.expiry);
                logins.first().map(upstream::login_command)
            }
            Err(problem) => {
                self.urgent = false;
                if let Some(suppressed) = route.throttle.allow("reauthentication") {
                    let route = &*route.route;
                    warn!(route, %problem, suppressed, "session not reauthenticated");
                }
                self.schedule_retry();
                if let Some(due) = &mut self.due {
                    let _ = due.as_mut().poll(cx);
                }
                None
            }
        }
    }

    /// Handles the reply to AUTH.
    pub(super) fn answered(&mut self, accepted: bool, route: &RouteContext, endpoint: &Endpoint) {
        if !accepted && !self.others.is_empty() {
            // The server may not have the newest secret yet, so an older one is next.
            let others = std::mem::take(&mut self.others);
            self.logins = Some(Box::pin(std::future::ready(Ok(others))));
            return;
        }
        self.urgent = false;
        route.metrics.reauthenticated(if accepted { "ok" } else { "refused" });
        if accepted {
            debug!(route = &*route.route, upstream = %endpoint, "session reauthenticated");
            self.retry = RELOGIN_RETRY;
            let now = Instant::now();
            // The source may not have given a new login yet.
            let expires = self.sent.map(|expiry| expiry.reauthentication().max(now + RELOGIN_RETRY));
            return self.schedule(now, expires);
        }
        if let Some(suppressed) = route.throttle.allow("reauthentication") {
            warn!(
                route = &*route.route,
                upstream = %endpoint,
                user = self.credentials.user(),
                suppressed,
                "session not reauthenticated, server refused the credentials"
            );
        }
        self.schedule_retry();
    }
}
