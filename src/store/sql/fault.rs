//! What a database's failure means to the host, and what to do about it.

use std::{fmt, sync::Arc};
#[cfg(feature = "sqlite")]
use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Connection, Target};
use crate::{Error, ErrorKind, Result};

/// Where the rows are: what to connect to, and what people call it.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    place: String,
    pub(super) target: Target,
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the ledger `{}`", self.place)
    }
}

/// Why a path cannot be a database: what is wrong, and what to do.
#[cfg(feature = "sqlite")]
#[derive(Debug)]
pub(super) struct Problem {
    what: String,
    source: Option<io::Error>,
}

impl Disk {
    pub(super) fn new(place: impl fmt::Display, target: Target) -> Self {
        Self { place: place.to_string(), target }
    }

    /// The same place, with all that is to be known for connecting to it.
    #[cfg(feature = "sqlite")]
    pub(super) fn at(self, target: Target) -> Self {
        Self { target, ..self }
    }

    /// The first connection, which also turns SQLite's WAL mode on.
    pub(super) async fn connect_first(&self) -> Result<Connection> {
        #[cfg(feature = "sqlite")]
        if self.target.is_sqlite() {
            return self.connect_wal().await;
        }
        self.target.connect().await.map_err(|e| self.failed(Arc::new(e)))
    }

    #[cfg(feature = "sqlite")]
    async fn connect_wal(&self) -> Result<Connection> {
        let (connection, mode) = self.try_connect_wal().await.map_err(|e| self.failed(Arc::new(e)))?;
        if mode == "wal" {
            return Ok(connection);
        }
        Err(Error::new(
            ErrorKind::Storage,
            format!(
                "{self} cannot be used in WAL mode (SQLite stays in `{mode}` mode); put it on a local disk: network \
                 file systems do not work"
            ),
        ))
    }

    /// Waits for whoever else is opening or using the file, by the busy timeout.
    #[cfg(feature = "sqlite")]
    async fn try_connect_wal(&self) -> sqlx::Result<(Connection, String)> {
        let mut connection = self.target.connect().await?;
        let mode = connection.one("PRAGMA journal_mode = WAL", Vec::new()).await?;
        let mode = mode.map(|record| record.text(0)).transpose()?.flatten().unwrap_or_default();
        Ok((connection, mode))
    }

    pub(super) fn newer(&self, found: i64, known: i64) -> Error {
        Error::new(
            ErrorKind::Storage,
            format!(
                "{self} was written by a newer version of mail-account (tables of version {found}, this one knows up \
                 to {known}); upgrade this program, or give it a ledger of its own"
            ),
        )
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn cannot_open(&self, problem: Problem) -> Error {
        let error = Error::new(ErrorKind::Storage, format!("{self} cannot be opened: {}", problem.what));
        match problem.source {
            Some(source) => error.with_source(source),
            None => error,
        }
    }

    #[cfg(feature = "sqlite")]
    pub(super) fn no_owner(&self, source: io::Error) -> Error {
        Error::new(
            ErrorKind::Storage,
            format!(
                "{self} cannot be opened: the folder `{}-owners` beside it must be writable, on a local disk",
                self.place
            ),
        )
        .with_source(source)
    }

    /// Of a statement, or of connecting.
    pub(super) fn failed(&self, source: Arc<sqlx::Error>) -> Error {
        let what = match sqlite_code(&source) {
            // The numbers are SQLite's primary result codes, https://www.sqlite.org/rescode.html
            Some(5 | 6) => "is being written by another process, for more than 10 s; end that process, or try again",
            Some(8) => "cannot be written; give this user the right to write to the file and its folder",
            Some(10) => {
                "cannot be read or written; look at the disk (is it full, failing, or a network file system?); nothing \
                 was written half"
            }
            Some(11) => "is damaged; restore it from a backup, or mend it with SQLite's `.recover`",
            Some(13) => "cannot be written because the disk is full; make room and run again: nothing was written half",
            Some(14) => "cannot be opened; look whether its folder exists and may be written by this user",
            Some(15) => "cannot be locked; put it on a local disk: network file systems do not work",
            Some(26) => "is not a SQLite database; name another file, or move this one away",
            _ => match &*source {
                sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                    "holds something that this version of mail-account cannot read; upgrade this program"
                }
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) => "cannot be reached; look at the server and its address",
                _ => "failed",
            },
        };
        Error::new(ErrorKind::Storage, format!("{self} {what}")).with_source(source)
    }
}

/// SQLite's primary result code.
fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    #[cfg(feature = "sqlite")]
    if let Some(error) = error.as_database_error().and_then(|e| e.try_downcast_ref::<sqlx::sqlite::SqliteError>()) {
        use sqlx::error::DatabaseError as _;
        let extended: i32 = error.code()?.parse().ok()?;
        return Some(extended & 0xff);
    }
    let _ = error;
    None
}

/// Makes sure that there is a file, and gives its one true path: whoever opens it by another name, through a link,
/// must find the same folder of owners beside it.
#[cfg(feature = "sqlite")]
pub(super) fn prepare(path: &Path) -> std::result::Result<PathBuf, Problem> {
    let problem = |what: String, source: io::Error| Problem { what, source: Some(source) };
    let absolute = std::path::absolute(path).map_err(|e| problem("the path is empty; name a file".to_owned(), e))?;
    if absolute.is_dir() {
        return Err(Problem { what: "it is a folder; name a file in it".to_owned(), source: None });
    }
    if let Some(folder) = absolute.parent()
        && !folder.is_dir()
    {
        return Err(Problem {
            what: format!("the folder `{}` does not exist; make it, or name another one", folder.display()),
            source: None,
        });
    }
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // It holds subjects and senders. SQLite gives the files beside it the same mode.
        options.mode(0o600);
    }
    options.open(&absolute).map_err(|e| match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => problem(
            "this user may not write there; give it the right to write to the file and its folder, or name another \
             file"
                .to_owned(),
            e,
        ),
        _ => problem("the file cannot be made or opened".to_owned(), e),
    })?;
    absolute.canonicalize().map_err(|e| problem("its true path cannot be found".to_owned(), e))
}

/// From a `postgres://` URL. Its password appears nowhere.
#[cfg(feature = "postgres")]
pub(super) fn server(url: &str) -> Result<Disk> {
    let wrong = || {
        Error::new(
            ErrorKind::InvalidConfig,
            "the URL of the ledger is not one of PostgreSQL; write it as `postgres://user:password@host:5432/database`",
        )
    };
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(wrong());
    }
    // The parser's own error may quote the URL, and with it the password.
    let options: sqlx::postgres::PgConnectOptions = url.parse().map_err(|_| wrong())?;
    let place = format!(
        "postgres://{}:{}/{}",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap_or_default()
    );
    let options = sqlx::ConnectOptions::disable_statement_logging(options);
    Ok(Disk::new(place, Target::Postgres(Box::new(options))))
}
