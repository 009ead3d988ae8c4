//! Tests of secrets that change while connections are open.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

fn credentials(source: SecretSource) -> Credentials {
    Credentials::new(&Settings {
        username: Some("app".into()),
        source,
        allow_plaintext: false,
        renewal: None,
    })
}

fn from_file(path: &Path) -> Credentials {
    credentials(SecretSource::File(path.to_owned()))
}

async fn secrets(credentials: &Credentials) -> Vec<String> {
    let logins = credentials.logins().await.unwrap();
    logins.iter().map(|login| String::from_utf8_lossy(login.secret.expose()).into_owned()).collect()
}

#[tokio::test]
async fn after_a_change_the_newest_comes_first_and_the_previous_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    fs::write(&path, "one\n").unwrap();
    let credentials = from_file(&path);
    let mut changes = credentials.changes();
    assert_eq!(secrets(&credentials).await, ["one"]);
    assert!(!changes.has_changed().unwrap(), "the first secret replaced none");
    for (content, expected) in [("two\r\n", ["two", "one"]), ("three", ["three", "two"])] {
        fs::write(&path, content).unwrap();
        assert!(matches!(credentials.look().await, SecretRefresh::Good));
        assert_eq!(secrets(&credentials).await, expected);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
    }
    credentials.look().await;
    assert!(!changes.has_changed().unwrap(), "the secret has not changed");
}

#[tokio::test]
async fn a_refusal_reads_the_source_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    fs::write(&path, "old").unwrap();
    let credentials = from_file(&path);
    let refused = credentials.logins().await.unwrap();
    assert!(credentials.logins_after_refusal(&refused).await.is_empty(), "there is nothing else to try");
    fs::write(&path, "new").unwrap();
    let next = credentials.logins_after_refusal(&refused).await;
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].secret.expose(), b"new");
}

#[tokio::test]
async fn a_source_that_fails_later_leaves_the_last_good_secret() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let credentials = from_file(&path);
    let problem = credentials.logins().await.unwrap_err().to_string();
    assert!(problem.starts_with("no secret for user app: cannot read"), "{problem}");
    fs::write(&path, "good").unwrap();
    assert_eq!(secrets(&credentials).await, ["good"]);
    for bad in ["", "\n"] {
        fs::write(&path, bad).unwrap();
        let SecretRefresh::Failed(problem) = credentials.look().await else { panic!("it is empty") };
        assert!(problem.to_string().ends_with("password is empty"), "{problem}");
        assert_eq!(secrets(&credentials).await, ["good"]);
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(credentials.look().await, SecretRefresh::Failed(_)));
    assert_eq!(secrets(&credentials).await, ["good"]);
}

#[tokio::test]
async fn a_special_file_is_refused_without_waiting() {
    let problem = from_file(Path::new("/dev/null")).logins().await.unwrap_err().to_string();
    assert!(problem.contains("/dev/null is not a regular file"), "{problem}");
}

#[tokio::test]
async fn a_variable_that_is_not_set_is_named() {
    let problem = credentials(SecretSource::Variable("TEST_NOT_SET".into())).logins().await.unwrap_err();
    assert_eq!(
        problem.to_string(),
        "no secret for user app: the environment variable TEST_NOT_SET is not set"
    );
}

#[tokio::test]
async fn a_command_is_not_run_for_every_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("runs");
    let script = format!("echo >> {log}; wc -l < {log}", log = log.display());
    let credentials = credentials(SecretSource::Command(["sh", "-c", &script].map(str::to_owned).to_vec()));
    let logins = credentials.logins().await.unwrap();
    for _ in 0..5 {
        assert!(credentials.logins_after_refusal(&logins).await.is_empty());
        credentials.look().await;
    }
    assert_eq!(fs::read_to_string(&log).unwrap().len(), 1, "it ran once");
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let source = SecretSource::Inline(Secret::new(b"hunter2".to_vec()));
    let settings = Settings { username: None, source, allow_plaintext: false, renewal: None };
    let credentials = Credentials::new(&settings);
    let logins = credentials.logins().await.unwrap();
    let printed = format!("{settings:?} {credentials} {logins:?}");
    assert!(printed.contains("user default, password from the configuration"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[tokio::test]
async fn a_commands_answer_that_comes_too_late_serves_the_next_caller() {
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let wait = format!("until test -e {}; do sleep 0.02; done; echo secret", go.display());
    let credentials = credentials(SecretSource::Command(["sh", "-c", &wait].map(str::to_owned).to_vec()));
    assert!(tokio::time::timeout(Duration::from_millis(20), credentials.ready()).await.is_err());
    fs::write(&go, "").unwrap();
    assert_eq!(secrets(&credentials).await, ["secret"]);
}

#[tokio::test]
async fn the_same_password_with_a_new_end_is_no_change() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let credentials = from_file(&path);
    let changes = credentials.changes();
    for end in ["2999-01-01T00:00:00Z", "2999-01-02T00:00:00Z"] {
        fs::write(&path, format!("{{\"password\": \"same\", \"expires_at\": \"{end}\"}}")).unwrap();
        credentials.look().await;
        assert_eq!(secrets(&credentials).await, ["same"]);
        assert_eq!(credentials.expires().unwrap().to_string(), end);
    }
    assert!(!changes.has_changed().unwrap());
}

#[tokio::test]
async fn a_command_whose_password_expires_is_run_again_after_growing_waits() {
    let command = SecretSource::Command(vec!["x".into()]);
    let expiry = |seconds| Expiry::new(std::time::SystemTime::now() + Duration::from_secs(seconds));
    let waits = |expiry: Option<&Expiry>| -> Vec<u64> {
        (1..=6).map(|failures| command.pause(failures, expiry).as_secs()).collect()
    };
    assert_eq!(waits(Some(&expiry(3600))), [1, 2, 4, 8, 10, 10]);
    assert_eq!(waits(None), [10; 6]);
    // After a refusal of a good password.
    assert_eq!(command.pause(0, Some(&expiry(3600))).as_secs(), 10);
    assert_eq!(command.pause(0, Some(&expiry(2))).as_secs(), 1);
}
