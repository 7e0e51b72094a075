//! Where folders lie: Maildir++ as Dovecot writes it.
//!
//! All folders lie side by side in the mailbox's own directory, which is the inbox. `Processed` is `.Processed`,
//! `Inbox/Processed` is `.INBOX.Processed`, `A/B` is `.A.B`; names are in modified UTF-7, as on the wire.

use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

use super::sys;
use crate::{
    Error, ErrorKind, FolderId, Result,
    folder::{is_inbox, utf7},
};

/// The name of a folder's directory below the mailbox's; empty for the inbox, which is that directory itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place(Box<[u8]>);

const INBOX: &str = "INBOX";
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'/');

impl Place {
    /// The inbox.
    pub(super) fn inbox() -> Self {
        Self(Box::default())
    }

    /// The folder in a directory of this name; `None` when it cannot be one.
    pub(super) fn of_directory(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(b".")?;
        // A `.INBOX` without more would be a second inbox; Dovecot does not show it either.
        let valid = rest.split(|byte| *byte == b'.').all(|part| !part.is_empty())
            && !rest.contains(&b'/')
            && !rest.contains(&0)
            && !rest.eq_ignore_ascii_case(INBOX.as_bytes());
        valid.then(|| Self(name.into()))
    }

    /// The folder that an id means; `None` when it is no id of a Maildir.
    pub(super) fn parse(id: &str) -> Option<Self> {
        if id == INBOX {
            return Some(Self::inbox());
        }
        Self::of_directory(&percent_decode_str(id).collect::<Vec<u8>>())
    }

    pub(super) fn id(&self) -> FolderId {
        if self.is_inbox() {
            return FolderId::new(INBOX);
        }
        FolderId::new(percent_encode(&self.0, ESCAPED).to_string())
    }

    pub(super) fn is_inbox(&self) -> bool {
        self.0.is_empty()
    }

    /// Its directory, in the mailbox at `root`.
    pub(super) fn path(&self, root: &Path) -> PathBuf {
        if self.is_inbox() { root.to_owned() } else { root.join(sys::os_name(&self.0)) }
    }

    /// The directory's name as it stands on disk.
    pub(super) fn raw(&self) -> &[u8] {
        &self.0
    }

    /// The names from the top down, as people read them.
    pub(super) fn segments(&self) -> Vec<String> {
        if self.is_inbox() {
            return vec!["Inbox".into()];
        }
        let mut segments: Vec<_> = self.0[1..].split(|byte| *byte == b'.').map(utf7::decode).collect();
        if is_inbox(&segments[0]) {
            segments[0] = "Inbox".into();
        }
        segments
    }

    /// The folder above; `None` at the top.
    pub(super) fn parent(&self) -> Option<Self> {
        let dot = self.0.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0)?;
        let parent = &self.0[..dot];
        Some(if parent[1..].eq_ignore_ascii_case(INBOX.as_bytes()) { Self::inbox() } else { Self(parent.into()) })
    }

    /// The folder called `name` below `parent`, or at the top.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] for a name that this layout has no room for.
    pub(super) fn child(parent: Option<&Self>, name: &str) -> Result<Self> {
        let refuse = |why: String| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("a Maildir cannot have a folder called `{}`: {why}; choose another name", name.escape_debug()),
            ))
        };
        if name.is_empty() {
            return refuse("the name is empty".into());
        }
        if let Some(taken) = name.chars().find(|c| matches!(c, '.' | '/')) {
            let used = if taken == '.' { "separates folder names on disk" } else { "cannot stand in a file name" };
            return refuse(format!("`{taken}` {used}"));
        }
        let mut raw = parent.map_or_else(Vec::new, |p| if p.is_inbox() { b".INBOX".to_vec() } else { p.0.to_vec() });
        raw.push(b'.');
        raw.extend(utf7::encode(name));
        // What file systems allow; checked here because a path that is too long fails in confusing ways.
        if raw.len() > 255 {
            return refuse(format!("its directory's name would be {} bytes long, and 255 is the most", raw.len()));
        }
        Ok(Self(raw.into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(directory: &str) -> Place {
        Place::of_directory(directory.as_bytes()).unwrap()
    }

    #[test]
    fn directories_are_dovecots() {
        let inbox = Place::inbox();
        for (parent, name, directory) in [
            (None, "Processed", ".Processed"),
            (Some(&inbox), "Processed", ".INBOX.Processed"),
            (Some(&place(".INBOX.A")), "B", ".INBOX.A.B"),
            (Some(&place(".A")), "Entwürfe & x", ".A.Entw&APw-rfe &- x"),
        ] {
            let child = Place::child(parent, name).unwrap();
            assert_eq!(child, place(directory));
            assert_eq!(child.parent().as_ref(), parent);
            assert_eq!(child.segments().last().unwrap(), name);
        }
        assert_eq!(place(".Inbox.x").segments(), ["Inbox", "x"]);
        assert_eq!(place(".inbox.x").parent(), Some(Place::inbox()));
        assert_eq!(place(".A").parent(), None);
    }

    #[test]
    fn names_without_room_are_refused() {
        for (name, says) in [("a.b", "`.`"), ("a/b", "`/`"), ("..", "`.`"), ("", "empty"), (&"é".repeat(120), "255")] {
            let error = Place::child(None, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(says), "{error}");
        }
        assert!(Place::child(None, &"x".repeat(254)).is_ok());
    }

    #[test]
    fn hostile_ids_are_refused() {
        for id in ["", ".", "..", "...", ".a..b", ".a.", "..a", "a", "/etc", ".a%2F..%2Fb", ".a%00", ".INBOX", ".inbox"]
        {
            assert_eq!(Place::parse(id), None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn any_directory_round_trips(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(place) = Place::of_directory(&[b".", &name[..]].concat()) {
                let id = place.id();
                prop_assert_eq!(Place::parse(id.as_str()), Some(place.clone()));
                prop_assert!(place.path(Path::new("/x")).parent() == Some(Path::new("/x")));
                prop_assert!(!place.segments().is_empty());
            }
        }

        #[test]
        fn any_name_is_found_again(name in "[^./]{1,20}") {
            prop_assume!(!is_inbox(&name));
            let place = Place::child(None, &name).unwrap();
            prop_assert_eq!(place.segments(), vec![name]);
        }
    }
}
