//! Debian's PostgreSQL as an ordinary process, on a free port of 127.0.0.1, with its data in a temporary folder.
//!
//! It is stopped, and its folder removed, when the value is dropped. A test program that is killed leaves none running
//! either: it ends with the thread that has started it, which lives as long as the value.

#![allow(dead_code, reason = "each test program uses its own part of this")]

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

const USER: &str = "mail";
const PASSWORD: &str = "p@ss/word";
const PASSWORD_IN_URL: &str = "p%40ss%2Fword";

/// A running server.
pub(crate) struct Postgres {
    bin: PathBuf,
    port: u16,
    child: Child,
    _keeper: mpsc::Sender<()>,
    databases: AtomicU32,
    _temp: tempfile::TempDir,
}

impl Postgres {
    /// Starts one, which takes a second or two.
    ///
    /// # Panics
    ///
    /// Without PostgreSQL: the test cannot be done, and must not seem to have been.
    pub(crate) fn start() -> Self {
        let (bin, temp) = (bin(), tempfile::tempdir().unwrap());
        let runner = Runner::here();
        let (data, password) = (temp.path().join("data"), temp.path().join("password"));
        fs::write(&password, PASSWORD).unwrap();
        runner.give(temp.path());
        runner.give(&password);
        let made = runner
            .command(&bin.join("initdb"), temp.path())
            .args(["--no-sync", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"])
            .arg(format!("--username={USER}"))
            .arg(format!("--pwfile={}", password.display()))
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));

        let log = temp.path().join("log");
        for _ in 0..5 {
            let port = free_port();
            let mut command = runner.command(&bin.join("postgres"), temp.path());
            command
                .arg("-D")
                .arg(&data)
                // What a crash of the machine would do is not tested here. The zone shows that times are not local ones.
                .args(["-c", "fsync=off", "-c", "timezone=America/New_York", "-c", "max_connections=200"])
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
                .args(["-c", &format!("port={port}")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(&log).unwrap());
            let (mut child, keeper) = spawn_kept(command);
            if is_up(&bin, port, &mut child) {
                return Self { bin, port, child, _keeper: keeper, databases: AtomicU32::new(0), _temp: temp };
            }
            // Somebody else may have taken the port between looking and starting.
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(&log).unwrap_or_default());
    }

    /// The URL of a new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Relaxed));
        let made = self.client("createdb").arg(&name).output().unwrap();
        assert!(made.status.success(), "createdb: {}", String::from_utf8_lossy(&made.stderr));
        format!("postgres://{USER}:{PASSWORD_IN_URL}@127.0.0.1:{}/{name}", self.port)
    }

    /// What psql says to a query in the database of this URL: a line for each row, `|` between columns.
    pub(crate) fn query(&self, url: &str, sql: &str) -> String {
        let name = url.rsplit_once('/').expect("a URL of this server").1;
        let out = self.client("psql").args(["-XAt", "-v", "ON_ERROR_STOP=1", "-c", sql, name]).output().unwrap();
        assert!(out.status.success(), "psql: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.env("PGPASSWORD", PASSWORD).args(["-h", "127.0.0.1", "-U", USER, "-p", &self.port.to_string()]);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its fast shutdown: sessions are cut off. Killed instead, it would leave its own children to find out.
        let _ = Command::new("kill").arg("-INT").arg(self.child.id().to_string()).status();
        for _ in 0..1000 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a thread that ends when the sender is dropped, and with the program at the latest.
fn spawn_kept(mut command: Command) -> (Child, mpsc::Sender<()>) {
    let (keeper, kept) = mpsc::channel();
    let (started, start) = mpsc::channel();
    thread::spawn(move || {
        started.send(command.spawn().unwrap()).unwrap();
        // Nothing is ever sent.
        let _ = kept.recv();
    });
    (start.recv().expect("setpriv is part of util-linux"), keeper)
}

/// Who runs the server: it refuses to be root.
struct Runner(Option<(u32, u32)>);

impl Runner {
    fn here() -> Self {
        let id = |args: &[&str]| {
            let out = Command::new("id").args(args).output().ok().filter(|out| out.status.success())?;
            String::from_utf8(out.stdout).ok()?.trim().parse::<u32>().ok()
        };
        if id(&["-u"]) != Some(0) {
            return Self(None);
        }
        let other = ["postgres", "nobody"].into_iter().find_map(|user| id(&["-u", user]).zip(id(&["-g", user])));
        Self(Some(other.expect("root needs another user to run PostgreSQL: `postgres` or `nobody`")))
    }

    fn give(&self, path: &Path) {
        if let Some((user, group)) = self.0 {
            chown(path, Some(user), Some(group)).unwrap();
        }
    }

    fn command(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new("setpriv");
        // The signal for an immediate shutdown.
        command.args(["--pdeathsig", "QUIT"]);
        if let Some((user, group)) = self.0 {
            command.args([format!("--reuid={user}"), format!("--regid={group}"), "--clear-groups".to_owned()]);
        }
        command.arg("--").arg(program).current_dir(folder);
        command
    }
}

/// Where Debian puts the programs of the newest version that is installed.
fn bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut bins: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    bins.retain(|bin| bin.join("postgres").exists());
    bins.sort();
    bins.pop().expect("no PostgreSQL here: install Debian's `postgresql`, or run `./tasks.sh setup`")
}

fn is_up(bin: &Path, port: u16, child: &mut Child) -> bool {
    for _ in 0..600 {
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        let ready = Command::new(bin.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port.to_string()])
            .status()
            .is_ok_and(|status| status.success());
        if ready {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap().port()
}
