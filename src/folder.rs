//! Folders, and how configuration names them.

pub(crate) mod utf7;

use std::{fmt, str::FromStr};

use unicode_normalization::UnicodeNormalization as _;

use crate::{Error, ErrorKind, Result};

/// The provider's own name of a folder: opaque, valid in one account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FolderId(String);

impl FolderId {
    /// Wraps the provider's name.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The provider's name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a folder is for, whatever language its name is in (RFC 6154; Microsoft's "well-known folder names").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// New mail arrives here.
    Inbox,
    /// Mail put aside.
    Archive,
    /// Unfinished mail.
    Drafts,
    /// Sent mail.
    Sent,
    /// Deleted mail.
    Trash,
    /// Unwanted mail.
    Junk,
    /// Mail on its way out.
    Outbox,
    /// Everything, as Gmail's "All Mail"; a view.
    All,
    /// Flagged mail; a view.
    Flagged,
}

impl Role {
    const NAMES: [(Self, &'static str); 9] = [
        (Self::Inbox, "inbox"),
        (Self::Archive, "archive"),
        (Self::Drafts, "drafts"),
        (Self::Sent, "sent"),
        (Self::Trash, "trash"),
        (Self::Junk, "junk"),
        (Self::Outbox, "outbox"),
        (Self::All, "all"),
        (Self::Flagged, "flagged"),
    ];

    /// The name used in `role:...` and in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::NAMES.iter().find(|(role, _)| *role == self).map_or("", |(_, name)| name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wanted = s.trim().to_ascii_lowercase();
        Self::NAMES.iter().find(|(_, name)| *name == wanted).map(|(role, _)| *role).ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().map(|(_, name)| format!("role:{name}")).collect();
            Error::new(
                ErrorKind::InvalidConfig,
                format!("`role:{s}` is not a folder role; known are {}", known.join(", ")),
            )
        })
    }
}

/// One folder of a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Folder {
    /// The provider's name.
    pub id: FolderId,
    /// The names from the top down, as people read them. A name may contain `/`.
    pub segments: Vec<String>,
    /// What it is for, where the service says so.
    pub role: Option<Role>,
    /// How many messages are in it, where known without extra cost. A hint: services count other items too.
    pub messages: Option<u64>,
    /// How many of them are unread.
    pub unread: Option<u64>,
    /// Not shown to people.
    pub hidden: bool,
    /// A view of messages that live in other folders. Never a place to move to.
    pub search: bool,
    /// Whether it can hold messages. Some servers list names that are only there for their children.
    pub selectable: bool,
}

impl Folder {
    /// A plain folder; set the other fields as needed.
    pub fn new(id: FolderId, segments: Vec<String>) -> Self {
        Self { id, segments, role: None, messages: None, unread: None, hidden: false, search: false, selectable: true }
    }

    /// With a role.
    #[must_use]
    pub fn with_role(mut self, role: Option<Role>) -> Self {
        self.role = role;
        self
    }

    /// The whole path, in the form a configuration understands: `/` between names, `\/` for a slash inside one.
    ///
    /// ```
    /// use mail_account::{Folder, FolderId};
    /// let folder = Folder::new(FolderId::new("x"), vec!["Inbox".into(), "in/out".into()]);
    /// assert_eq!(folder.path(), r"Inbox/in\/out");
    /// ```
    #[must_use]
    pub fn path(&self) -> String {
        join(&self.segments)
    }

    /// The last name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.segments.last().map_or("", String::as_str)
    }
}

fn join(segments: &[String]) -> String {
    let escaped: Vec<_> = segments.iter().map(|s| s.replace('\\', r"\\").replace('/', r"\/")).collect();
    escaped.join("/")
}

/// How configuration names a folder: `inbox`, a path (`Inbox/Processed`), `role:archive`, or `id:AAMk...`.
///
/// `/` separates names whatever the server's delimiter is, `\/` is a slash inside a name, `\\` a backslash. `Inbox` in
/// any case, and the inbox's own localised name, mean the inbox, also as the first name of a path. Other roles are
/// meant only by `role:...`, because a user may own a folder called `Archive`.
///
/// ```
/// use mail_account::{FolderSpec, Role};
/// let spec: FolderSpec = "INBOX/Processed".parse()?;
/// assert_eq!(spec, FolderSpec::Path(vec!["INBOX".into(), "Processed".into()]));
/// assert_eq!("inbox".parse::<FolderSpec>()?, FolderSpec::Role(Role::Inbox));
/// assert!("Inbox//x".parse::<FolderSpec>().is_err());
/// # Ok::<(), mail_account::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FolderSpec {
    /// By what it is for.
    Role(Role),
    /// By names from the top down.
    Path(Vec<String>),
    /// By the provider's own name.
    Id(FolderId),
}

impl FromStr for FolderSpec {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let bad = |what: &str| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("`{s}` does not name a folder: {what}; write `Inbox/Processed`, `role:archive` or `id:...`"),
            ))
        };
        if let Some(id) = s.strip_prefix("id:") {
            return if id.is_empty() { bad("nothing follows `id:`") } else { Ok(Self::Id(FolderId::new(id))) };
        }
        if let Some(role) = s.strip_prefix("role:") {
            return role.parse().map(Self::Role);
        }
        let mut segments = vec![String::new()];
        let mut chars = s.trim().chars();
        while let Some(c) = chars.next() {
            let last = segments.last_mut().expect("never empty");
            match c {
                '/' => segments.push(String::new()),
                '\\' => match chars.next() {
                    Some(escaped @ ('/' | '\\')) => last.push(escaped),
                    Some(other) => last.extend(['\\', other]),
                    None => last.push('\\'),
                },
                c if c.is_control() => return bad("it contains a control character"),
                c => last.push(c),
            }
        }
        if segments.iter().any(|s| s.trim().is_empty()) {
            return bad("a name is empty");
        }
        Ok(if segments.len() == 1 && is_inbox(&segments[0]) { Self::Role(Role::Inbox) } else { Self::Path(segments) })
    }
}

impl fmt::Display for FolderSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(Role::Inbox) => f.write_str("Inbox"),
            Self::Role(role) => write!(f, "role:{role}"),
            Self::Path(segments) => f.write_str(&join(segments)),
            Self::Id(id) => write!(f, "id:{id}"),
        }
    }
}

/// Whether this is the name of the inbox that works everywhere (RFC 3501, section 5.1).
pub(crate) fn is_inbox(name: &str) -> bool {
    name.eq_ignore_ascii_case("inbox")
}

/// Whether two paths name one folder. The inbox's name has no case of its own: a server may list `inbox`, and
/// `INBOX/Processed` below it.
fn is_same_path(a: &[String], b: &[String]) -> bool {
    match (a, b) {
        ([a, below_a @ ..], [b, below_b @ ..]) => (a == b || is_inbox(a) && is_inbox(b)) && below_a == below_b,
        _ => a == b,
    }
}

/// The position of the one entry called `wanted`: exact case first, then ignoring case if that is unambiguous.
///
/// # Errors
///
/// [`ErrorKind::InvalidConfig`] when several differ only by case and none is exact.
pub(crate) fn pick_name<'a>(names: impl Iterator<Item = &'a str> + Clone, wanted: &str) -> Result<Option<usize>> {
    if let Some(exact) = names.clone().position(|name| name == wanted) {
        return Ok(Some(exact));
    }
    // An accent may be a character of its own: some mail programs write folder names so, and nobody sees the difference.
    let fold = |name: &str| name.nfc().collect::<String>().to_lowercase();
    let folded = fold(wanted);
    let mut alike = names.clone().enumerate().filter(|(_, name)| fold(name) == folded);
    match (alike.next(), alike.next()) {
        (None, _) => Ok(None),
        (Some((at, _)), None) => Ok(Some(at)),
        (Some((_, a)), Some((_, b))) => Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("the folder `{wanted}` is ambiguous: there are `{a}` and `{b}`; write one of them exactly"),
        )),
    }
}

/// Finds the folder a spec means among all folders of the mailbox. A provider does this in
/// [`resolve_folder`](crate::MailAccount::resolve_folder), so that specs mean the same everywhere.
///
/// # Errors
///
/// [`ErrorKind::NotFound`], listing existing folders, nearest first; [`ErrorKind::InvalidConfig`] when ambiguous.
pub fn resolve<'a>(folders: &'a [Folder], spec: &FolderSpec) -> Result<&'a Folder> {
    let found = match spec {
        FolderSpec::Id(id) => folders.iter().find(|f| f.id == *id),
        FolderSpec::Role(role) => folders.iter().find(|f| f.role == Some(*role)),
        FolderSpec::Path(segments) => {
            let mut level: Vec<String> = Vec::new();
            let mut found = None;
            for (depth, wanted) in segments.iter().enumerate() {
                let inbox = folders.iter().find(|f| f.role == Some(Role::Inbox) && f.segments.len() == 1);
                let here: Vec<&Folder> = folders
                    .iter()
                    .filter(|f| f.segments.len() == depth + 1 && is_same_path(&f.segments[..depth], &level))
                    .collect();
                found = match (depth, inbox) {
                    (0, Some(inbox)) if is_inbox(wanted) => Some(inbox),
                    _ => pick_name(here.iter().map(|f| f.name()), wanted)?.map(|at| here[at]),
                };
                match found {
                    Some(folder) => level.clone_from(&folder.segments),
                    None => break,
                }
            }
            found
        }
    };
    found.ok_or_else(|| not_found(spec, folders))
}

/// The paths of up to eight existing folders, in backticks, nearest first.
pub(crate) fn nearest(spec: &FolderSpec, folders: &[Folder]) -> Vec<String> {
    let wanted = spec.to_string().to_lowercase();
    let mut near: Vec<_> = shown(folders).map(|f| (distance(&wanted, &f.path().to_lowercase()), f.path())).collect();
    near.sort();
    near.into_iter().take(8).map(|(_, path)| format!("`{path}`")).collect()
}

/// What a person may have meant.
fn shown(folders: &[Folder]) -> impl Iterator<Item = &Folder> {
    folders.iter().filter(|f| !f.hidden && !f.search)
}

/// The error for a folder that is not there: the existing ones are listed, nearest first.
pub(crate) fn not_found(spec: &FolderSpec, folders: &[Folder]) -> Error {
    let listed = nearest(spec, folders);
    let more = shown(folders).count() - listed.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let existing = if listed.is_empty() {
        "the mailbox has no folders".to_owned()
    } else {
        format!("the mailbox has {}{more}", listed.join(", "))
    };
    let remedy = match spec {
        FolderSpec::Path(_) => {
            "Correct the name, create the folder, or set `create_folders = true` for a folder mail is moved to"
        }
        _ => "Name one of these",
    };
    Error::new(ErrorKind::NotFound, format!("there is no folder `{spec}`; {existing}. {remedy}"))
}

/// Levenshtein distance, over the first 200 characters.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(200).collect();
    let b: Vec<char> = b.chars().take(200).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let next = (diagonal + usize::from(ca != cb)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &[&str], role: Option<Role>) -> Folder {
        Folder::new(FolderId::new(path.join("|")), path.iter().map(|s| (*s).to_owned()).collect()).with_role(role)
    }

    fn dutch() -> Vec<Folder> {
        vec![
            folder(&["Postvak IN"], Some(Role::Inbox)),
            folder(&["Postvak IN", "Verwerkt"], None),
            folder(&["Postvak IN", "verwerkt/oud"], None),
            folder(&["Archief"], Some(Role::Archive)),
            folder(&["Facturen"], None),
            folder(&["facturen"], None),
        ]
    }

    fn path_of(spec: &str) -> Result<String> {
        resolve(&dutch(), &spec.parse()?).map(Folder::path)
    }

    #[test]
    fn inbox_has_many_names() {
        for spec in ["inbox", "INBOX", "Postvak IN", "postvak in", "role:inbox", "id:Postvak IN"] {
            assert_eq!(path_of(spec).unwrap(), "Postvak IN", "{spec}");
        }
        assert_eq!(path_of("Inbox/verwerkt").unwrap(), "Postvak IN/Verwerkt");
        assert_eq!(path_of(r"Inbox/Verwerkt\/oud").unwrap(), r"Postvak IN/verwerkt\/oud");
    }

    #[test]
    fn the_inbox_has_no_case_of_its_own() {
        let folders = [folder(&["inbox"], Some(Role::Inbox)), folder(&["INBOX", "Processed"], None)];
        let found = resolve(&folders, &"Inbox/Processed".parse().unwrap()).unwrap();
        assert_eq!(found.path(), "INBOX/Processed");
    }

    #[test]
    fn other_roles_are_meant_only_by_role() {
        assert_eq!(path_of("role:archive").unwrap(), "Archief");
        assert_eq!(path_of("Archive").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn exact_case_wins_and_ambiguity_is_told() {
        assert_eq!(path_of("facturen").unwrap(), "facturen");
        let error = path_of("FACTUREN").unwrap_err();
        assert!(error.to_string().contains("`Facturen` and `facturen`"), "{error}");
    }

    #[test]
    fn accents_are_the_same_however_they_are_written() {
        let folders = [folder(&["Re\u{301}c\u{327}us"], None)];
        assert!(resolve(&folders, &"R\u{e9}\u{e7}us".parse().unwrap()).is_ok());
    }

    #[test]
    fn not_found_lists_the_nearest_first() {
        let error = path_of("Inbox/Verwerk").unwrap_err();
        let text = error.to_string();
        let near = text.find("`Postvak IN/Verwerkt`").unwrap();
        assert!(near < text.find("`Archief`").unwrap(), "{text}");
    }

    #[test]
    fn specs_print_as_they_are_read() {
        for spec in ["Inbox", r"a\/b/c", "role:junk", "id:AAMk=", r"back\\slash"] {
            assert_eq!(spec.parse::<FolderSpec>().unwrap().to_string(), spec);
        }
        for bad in ["", "/", "a//b", "a/", "role:nothing", "id:", "a\nb"] {
            assert_eq!(bad.parse::<FolderSpec>().unwrap_err().kind(), ErrorKind::InvalidConfig, "{bad:?}");
        }
    }
}
