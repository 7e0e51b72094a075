//! What goes wrong, and when: faults, outages, the hook around every call, the log and the counts.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures::future::BoxFuture;

use crate::{AttachmentId, Error, ErrorKind, FolderId, MessageId};

/// A call of the account, or one step of a call that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// `list_folders`.
    ListFolders,
    /// `resolve_folder`.
    ResolveFolder,
    /// `create_folder`.
    CreateFolder,
    /// `folder_access`.
    FolderAccess,
    /// The first poll of `fetch_messages`, which fixes the set.
    FetchMessages,
    /// Each message that a stream of `fetch_messages` reads.
    NextMessage,
    /// `fetch_message`.
    FetchMessage,
    /// The first poll of `download_attachment`. The call is over when the last byte was given.
    Download,
    /// `move_to_processed`, the whole batch.
    Move,
    /// Each message of a batch that is moved.
    MoveMessage,
    /// `mark_read`.
    MarkRead,
}

impl Operation {
    /// The trait's method.
    #[must_use]
    pub fn method(self) -> &'static str {
        match self {
            Self::ListFolders => "list_folders",
            Self::ResolveFolder => "resolve_folder",
            Self::CreateFolder => "create_folder",
            Self::FolderAccess => "folder_access",
            Self::FetchMessages | Self::NextMessage => "fetch_messages",
            Self::FetchMessage => "fetch_message",
            Self::Download => "download_attachment",
            Self::Move | Self::MoveMessage => "move_to_processed",
            Self::MarkRead => "mark_read",
        }
    }
}

/// When the hook is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Nothing has been done yet.
    Before,
    /// It has been done, or has failed; the caller does not know yet.
    After,
}

/// One call, as the hook and the log see it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Call {
    /// Which account was called.
    pub account: String,
    /// What was called.
    pub operation: Operation,
    /// The how manieth call of this operation on the mailbox, from 1.
    pub number: u64,
    /// Before or after.
    pub phase: Phase,
    /// The messages it is about.
    pub messages: Vec<MessageId>,
    /// The folder it is about; for a move the folder moved to.
    pub folder: Option<FolderId>,
    /// The attachment it is about.
    pub attachment: Option<AttachmentId>,
    /// How it fails, as the caller sees it; only in [`Phase::After`].
    pub error: Option<ErrorKind>,
}

impl Call {
    pub(super) fn new(account: &str, operation: Operation) -> Self {
        Self {
            account: account.to_owned(),
            operation,
            number: 0,
            phase: Phase::Before,
            messages: Vec::new(),
            folder: None,
            attachment: None,
            error: None,
        }
    }

    pub(super) fn of(mut self, messages: &[MessageId]) -> Self {
        self.messages = messages.to_vec();
        self
    }

    pub(super) fn folder(mut self, folder: &FolderId) -> Self {
        self.folder = Some(folder.clone());
        self
    }
}

/// What the hook wants to happen with the call it was shown.
#[non_exhaustive]
pub enum Reaction {
    /// It goes on.
    Go,
    /// It never returns: what a caller sees that is killed at this point.
    Hang,
    /// It fails. In [`Phase::After`] it has been performed all the same.
    Fail(Error),
    /// It goes on when this future is ready.
    Wait(BoxFuture<'static, ()>),
}

impl From<()> for Reaction {
    fn from((): ()) -> Self {
        Self::Go
    }
}

impl fmt::Debug for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Go => "Go",
            Self::Hang => "Hang",
            Self::Fail(_) => "Fail",
            Self::Wait(_) => "Wait",
        })
    }
}

/// Something that goes wrong with a call.
///
/// Counts the calls that it applies to from the moment it is scripted; hits the first one, unless
/// [`nth`](Self::nth) or [`always`](Self::always) says otherwise. Without an effect the call fails with
/// [`ErrorKind::Unavailable`].
///
/// ```
/// use mail_account::{ErrorKind, provider::memory::{Fault, MemoryMailbox, Operation}};
/// let mailbox = MemoryMailbox::new("facturen@contoso.nl");
/// // The third batch is moved, but its answer is lost.
/// mailbox.fault(Fault::on(Operation::Move).nth(3).error(ErrorKind::Timeout).after_performing());
/// // Every download breaks off after a thousand bytes.
/// mailbox.fault(Fault::on(Operation::Download).always().cut_after(1000));
/// ```
#[derive(Clone)]
pub struct Fault {
    operation: Operation,
    first: u64,
    times: u64,
    after: bool,
    effect: Effect,
    filter: Option<Filter>,
    seen: u64,
    pub(super) hits: u64,
}

type Filter = Arc<dyn Fn(&Call) -> bool + Send + Sync>;

#[derive(Clone)]
pub(super) enum Effect {
    Error { kind: ErrorKind, retry_after: Option<Duration> },
    Hang,
    Vanish,
    Cut { after: u64, kind: ErrorKind },
}

impl Fault {
    /// Of calls of this operation.
    #[must_use]
    pub fn on(operation: Operation) -> Self {
        Self {
            operation,
            first: 1,
            times: 1,
            after: false,
            effect: Effect::Error { kind: ErrorKind::Unavailable, retry_after: None },
            filter: None,
            seen: 0,
            hits: 0,
        }
    }

    /// Hits the `n`th call, from 1.
    #[must_use]
    pub fn nth(mut self, n: u64) -> Self {
        self.first = n.max(1);
        self
    }

    /// Hits so many calls in a row.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// Hits every call from the first (or [`nth`](Self::nth)) on.
    #[must_use]
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Applies only to calls for which `filter` says `true`.
    #[must_use]
    pub fn when(mut self, filter: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// The call fails with this kind of error.
    #[must_use]
    pub fn error(mut self, kind: ErrorKind) -> Self {
        self.effect = Effect::Error { kind, retry_after: None };
        self
    }

    /// The service asks for a pause: [`ErrorKind::Throttled`].
    #[must_use]
    pub fn throttled(mut self, retry_after: Duration) -> Self {
        self.effect = Effect::Error { kind: ErrorKind::Throttled, retry_after: Some(retry_after) };
        self
    }

    /// The call never returns.
    #[must_use]
    pub fn hang(mut self) -> Self {
        self.effect = Effect::Hang;
        self
    }

    /// Somebody deletes the messages of the call just before it is performed.
    #[must_use]
    pub fn vanish(mut self) -> Self {
        self.effect = Effect::Vanish;
        self
    }

    /// A download breaks off after so many bytes, a batch of moves after so many messages, with
    /// [`ErrorKind::Unavailable`]. Other calls fail at once.
    #[must_use]
    pub fn cut_after(mut self, count: u64) -> Self {
        self.effect = Effect::Cut { after: count, kind: ErrorKind::Unavailable };
        self
    }

    /// An error or a hang comes after the call has been performed: its answer is lost.
    #[must_use]
    pub fn after_performing(mut self) -> Self {
        self.after = true;
        self
    }

    fn applies(&mut self, call: &Call) -> bool {
        if self.operation != call.operation || self.filter.as_ref().is_some_and(|filter| !filter(call)) {
            return false;
        }
        self.seen += 1;
        let due = self.seen >= self.first && self.hits < self.times;
        self.hits += u64::from(due);
        due
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("operation", &self.operation).field("first", &self.first).finish_non_exhaustive()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.effect {
            Effect::Error { kind, .. } => format!("error `{kind}`"),
            Effect::Hang => "hang".to_owned(),
            Effect::Vanish => "vanish".to_owned(),
            Effect::Cut { after, .. } => format!("cut after {after}"),
        };
        write!(f, "{what} on {:?} call {} (calls seen: {}, hit: {})", self.operation, self.first, self.seen, self.hits)
    }
}

pub(super) type Hook = Arc<dyn Fn(&Call) -> Reaction + Send + Sync>;

/// The part of the mailbox's state that decides what goes wrong.
#[derive(Default)]
pub(super) struct Script {
    pub(super) faults: Vec<Fault>,
    pub(super) hook: Option<Hook>,
    pub(super) outage: Option<(Option<String>, ErrorKind)>,
    pub(super) counts: BTreeMap<Operation, u64>,
    pub(super) log: Option<Vec<Call>>,
}

/// What a fault does to a call that was let through.
#[derive(Default)]
pub(super) struct Twist {
    /// Instead of the answer, once performed.
    pub(super) lost: Option<Effect>,
    /// Breaks off after so many.
    pub(super) cut: Option<(u64, ErrorKind)>,
    /// The messages vanish first.
    pub(super) vanish: bool,
}

pub(super) enum Verdict {
    Go(Twist),
    Hang,
    Fail(Error),
}

impl Script {
    /// Notes the call and gives it its number.
    pub(super) fn enter(&mut self, call: &mut Call) {
        let count = self.counts.entry(call.operation).or_default();
        *count += 1;
        call.number = *count;
        if let Some(log) = &mut self.log {
            log.push(call.clone());
        }
    }

    /// Notes how it ended.
    pub(super) fn leave(&mut self, call: &Call) {
        let log = self.log.iter_mut().flatten().rev();
        let same = |noted: &&mut Call| noted.operation == call.operation && noted.number == call.number;
        if let Some(noted) = log.into_iter().find(same) {
            noted.clone_from(call);
        }
    }

    /// What the outage and the faults have in store for a call.
    pub(super) fn judge(&mut self, call: &Call) -> Verdict {
        if let Some((account, kind)) = &self.outage
            && account.as_ref().is_none_or(|account| *account == call.account)
        {
            return Verdict::Fail(scripted(*kind, call.operation));
        }
        // Every fault counts for itself, whichever of them hits.
        let due: Vec<bool> = self.faults.iter_mut().map(|fault| fault.applies(call)).collect();
        let Some(fault) = due.iter().position(|due| *due).map(|at| &self.faults[at]) else {
            return Verdict::Go(Twist::default());
        };
        match (&fault.effect, fault.after) {
            (effect @ (Effect::Error { .. } | Effect::Hang), true) => {
                Verdict::Go(Twist { lost: Some(effect.clone()), ..Twist::default() })
            }
            (Effect::Error { kind, retry_after }, false) => {
                Verdict::Fail(with_pause(scripted(*kind, call.operation), *retry_after))
            }
            (Effect::Hang, false) => Verdict::Hang,
            (Effect::Vanish, _) => Verdict::Go(Twist { vanish: true, ..Twist::default() }),
            (Effect::Cut { after, kind }, _) if matches!(call.operation, Operation::Download | Operation::Move) => {
                Verdict::Go(Twist { cut: Some((*after, *kind)), ..Twist::default() })
            }
            (Effect::Cut { kind, .. }, _) => Verdict::Fail(scripted(*kind, call.operation)),
        }
    }
}

pub(super) fn with_pause(error: Error, pause: Option<Duration>) -> Error {
    match pause {
        Some(pause) => error.with_retry_after(pause),
        None => error,
    }
}

/// The error of a scripted fault.
pub(super) fn scripted(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, format!("a scripted fault of kind `{kind}`")).with_operation(operation.method())
}
