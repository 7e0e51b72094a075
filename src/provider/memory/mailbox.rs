//! [`MemoryMailbox`]: the mailbox itself, and what happens to it behind an account's back.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    generated::Generated,
    script::{Call, Fault, Operation, Reaction},
    state::{Body, DUTCH, ENGLISH, State},
};
use crate::{Access, ErrorKind, FolderSpec, Result};

/// A mailbox in memory. Cheap to clone; clones are the same mailbox.
///
/// Has an inbox, and folders for drafts, sent, deleted, unwanted and archived mail. Its own methods are what a test
/// does as the sender, another mail program, or the person who owns the mailbox; the account is
/// [`MemoryAccount`](super::MemoryAccount). Folders are named as in a configuration (`Inbox/Processed`).
#[derive(Clone)]
pub struct MemoryMailbox {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    state: Mutex<State>,
}

/// Names one message of a [`MemoryMailbox`], wherever it is moved and whichever account looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoredId(pub(super) u64);

/// A message as it lies in the mailbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoredMail {
    /// Its name.
    pub id: StoredId,
    /// When the mailbox got it.
    pub received: Timestamp,
    /// Whether somebody has read it.
    pub read: bool,
    /// Marked as deleted and still there; see [`MemoryOptions::copy_only`](super::MemoryOptions::copy_only).
    pub deleted: bool,
    /// The whole message, as RFC 5322.
    pub raw: Bytes,
}

impl MemoryMailbox {
    /// An empty mailbox. `name` is its address, or whatever the ledger should know it by.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { inner: Arc::new(Inner { name: name.into(), state: Mutex::new(State::new(&ENGLISH)) }) }
    }

    /// The same with Dutch folder names: `Postvak IN`, `Verwijderde items`, ...
    #[must_use]
    pub fn dutch(name: impl Into<String>) -> Self {
        Self { inner: Arc::new(Inner { name: name.into(), state: Mutex::new(State::new(&DUTCH)) }) }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held can only come from a broken invariant of `state.rs`; what a panicking test
        // leaves behind is still worth looking at.
        self.inner.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Delivers a message; the folder is made if it is missing.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`] when `folder` does not name one.
    pub fn deliver(&self, folder: &str, raw: impl Into<Bytes>, received: Timestamp) -> Result<StoredId> {
        let spec: FolderSpec = folder.parse()?;
        let mut state = self.state();
        let folder = state.create_folder(&spec)?;
        Ok(StoredId(state.add(folder, Body::Raw(raw.into()), received)))
    }

    /// Delivers a message that accounts cannot read: they give it with
    /// [`Defect::Unreadable`](crate::Defect::Unreadable), and can still download it.
    ///
    /// # Errors
    ///
    /// As [`deliver`](Self::deliver).
    pub fn deliver_unreadable(&self, folder: &str, raw: impl Into<Bytes>, received: Timestamp) -> Result<StoredId> {
        let id = self.deliver(folder, raw, received)?;
        if let Some(item) = self.state().item_mut(id.0) {
            item.unreadable = true;
        }
        Ok(id)
    }

    /// Delivers `count` generated messages, at the cost of an entry each.
    ///
    /// # Errors
    ///
    /// As [`deliver`](Self::deliver).
    pub fn generate(&self, folder: &str, count: u32, mails: Generated) -> Result<()> {
        let spec: FolderSpec = folder.parse()?;
        let mails = Arc::new(mails);
        let mut state = self.state();
        let folder = state.create_folder(&spec)?;
        state.reserve(count as usize);
        for number in 0..count {
            state.add(folder, Body::Generated(Arc::clone(&mails), number), mails.received(number));
        }
        Ok(())
    }

    /// Makes a folder, and what is missing above it.
    ///
    /// # Errors
    ///
    /// As [`deliver`](Self::deliver).
    pub fn create_folder(&self, folder: &str) -> Result<()> {
        self.state().create_folder(&folder.parse()?).map(drop)
    }

    /// Deletes a folder with all that is in it and below it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn delete_folder(&self, folder: &str) -> Result<()> {
        self.with_folder(folder, State::delete_folder)
    }

    /// Gives a folder another name; messages and handles stay.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn rename_folder(&self, folder: &str, name: &str) -> Result<()> {
        self.with_folder(folder, |state, folder| state.rename_folder(folder, name))
    }

    /// Says what accounts may do in a folder. [`Access::ReadOnly`] refuses moves; [`Access::Unknown`] allows them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn set_access(&self, folder: &str, access: Access) -> Result<()> {
        self.with_folder(folder, |state, folder| state.set_access(folder, access))
    }

    /// Marks a folder as hidden, as a view of other folders, or as one that only holds folders.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn set_folder_flags(&self, folder: &str, hidden: bool, search: bool, selectable: bool) -> Result<()> {
        self.with_folder(folder, |state, folder| state.set_flags(folder, hidden, search, selectable))
    }

    fn with_folder<T>(&self, folder: &str, f: impl FnOnce(&mut State, usize) -> T) -> Result<T> {
        let mut state = self.state();
        let folder = state.find_folder(&folder.parse()?)?;
        Ok(f(&mut state, folder))
    }

    /// Deletes a message for good; `false` when it was not there.
    pub fn delete(&self, id: StoredId) -> bool {
        self.state().delete(id.0)
    }

    /// A person moves a message to another folder, or puts it back; `false` when it was not there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn move_by_person(&self, id: StoredId, to: &str) -> Result<bool> {
        self.with_folder(to, |state, to| state.relocate(id.0, to))
    }

    /// A person marks a message as read or unread; `false` when it was not there.
    pub fn mark(&self, id: StoredId, read: bool) -> bool {
        self.state().item_mut(id.0).map(|item| item.read = read).is_some()
    }

    /// The messages of a folder as a person sees them, oldest received first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn ids(&self, folder: &str) -> Result<Vec<StoredId>> {
        self.with_folder(folder, |state, folder| state.listed(folder).map(|(n, _)| StoredId(n)).collect())
    }

    /// All that lies in a folder, also what is marked as deleted, oldest received first. Holds every message in full.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn contents(&self, folder: &str) -> Result<Vec<StoredMail>> {
        self.with_folder(folder, |state, folder| {
            state
                .stored(folder)
                .map(|(n, item)| StoredMail {
                    id: StoredId(n),
                    received: item.received,
                    read: item.read,
                    deleted: item.copied_to.is_some(),
                    raw: match &item.body {
                        Body::Raw(raw) => raw.clone(),
                        Body::Generated(mails, number) => mails.raw(*number, self.name()),
                    },
                })
                .collect()
        })
    }

    /// The path of the folder that holds a message; `None` when it is not there.
    #[must_use]
    pub fn folder_of(&self, id: StoredId) -> Option<String> {
        let state = self.state();
        state.item(id.0).map(|item| state.path(item.folder))
    }

    /// Deletes every message of a folder.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] when there is no such folder.
    pub fn clear(&self, folder: &str) -> Result<()> {
        self.with_folder(folder, |state, folder| {
            let all: Vec<u64> = state.stored(folder).map(|(n, _)| n).collect();
            for n in all {
                state.delete(n);
            }
        })
    }

    /// Voids every handle that was given out, as an IMAP server does that changes UIDVALIDITY. The messages stay.
    pub fn void_handles(&self) {
        self.state().epoch += 1;
    }

    /// Scripts a fault.
    pub fn fault(&self, fault: Fault) {
        self.state().script.faults.push(fault);
    }

    /// Forgets all scripted faults.
    pub fn clear_faults(&self) {
        self.state().script.faults.clear();
    }

    /// The scripted faults that have not hit any call, described.
    #[must_use]
    pub fn unmet_faults(&self) -> Vec<String> {
        self.state().script.faults.iter().filter(|fault| fault.hits == 0).map(ToString::to_string).collect()
    }

    /// From now on every call of every account fails with this kind, until [`mend`](Self::mend).
    pub fn outage(&self, kind: ErrorKind) {
        self.state().script.outage = Some((None, kind));
    }

    /// From now on every call of this account fails with this kind, until [`mend`](Self::mend).
    pub fn outage_of(&self, account: impl Into<String>, kind: ErrorKind) {
        self.state().script.outage = Some((Some(account.into()), kind));
    }

    /// Ends the outage.
    pub fn mend(&self) {
        self.state().script.outage = None;
    }

    /// Calls `hook` before and after every call and every step of a call; replaces the one before it. It may use the
    /// mailbox: a second person's doings fit in here. It says what happens to the call, or `()` to let it go on.
    pub fn on_call<R: Into<Reaction>>(&self, hook: impl Fn(&Call) -> R + Send + Sync + 'static) {
        self.state().script.hook = Some(Arc::new(move |call| hook(call).into()));
    }

    /// Takes the hook away.
    pub fn clear_hook(&self) {
        self.state().script.hook = None;
    }

    /// How many calls of an operation there were, failed ones included.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().script.counts.get(&operation).copied().unwrap_or(0)
    }

    /// Starts to keep a log of calls.
    #[must_use]
    pub fn with_call_log(self) -> Self {
        self.state().script.log.get_or_insert_default();
        self
    }

    /// The calls so far, steps included, in the order in which they began. One that is still in
    /// [`Phase::Before`](super::Phase::Before) has not returned.
    ///
    /// # Panics
    ///
    /// Unless the log was started with [`with_call_log`](Self::with_call_log): an empty answer would be misleading.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().script.log.clone().expect("no log is kept; start it with `MemoryMailbox::with_call_log`")
    }
}

impl fmt::Debug for MemoryMailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryMailbox").field("name", &self.inner.name).finish_non_exhaustive()
    }
}
