//! One function per call of the trait. Each passes a gate on its way in and out, where the script has its say.

use std::sync::Arc;

use bytes::Bytes;
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    NAME,
    config::MemoryOptions,
    mailbox::{MemoryMailbox, StoredId},
    script::{Call, Effect, Operation, Phase, Reaction, Twist, Verdict, scripted, with_pause},
    state::{Body, Item, State},
};
use crate::{
    Access, AttachmentId, Content, Defect, Error, ErrorKind, Folder, FolderId, FolderSpec, MailboxInfo, Message,
    MessageId, MoveOutcome, Query, Result, folder, mime,
};

pub(super) struct Session {
    pub(super) mailbox: MemoryMailbox,
    pub(super) options: MemoryOptions,
    pub(super) info: MailboxInfo,
}

/// A call on its way.
struct Gate {
    call: Call,
    twist: Twist,
}

impl Session {
    pub(super) fn new(account: String, mailbox: MemoryMailbox, options: MemoryOptions) -> Self {
        let name = options.address.as_deref().unwrap_or(mailbox.name());
        let info = MailboxInfo::new(account, NAME, name);
        Self { mailbox, options, info }
    }

    pub(super) async fn list_folders(&self) -> Result<Vec<Folder>> {
        let gate = self.enter(self.call(Operation::ListFolders)).await?;
        let folders = self.mailbox.state().folders(|n| self.folder_id(n), true);
        self.leave(gate, Ok(folders)).await
    }

    pub(super) async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let gate = self.enter(self.call(Operation::ResolveFolder)).await?;
        let folders = self.mailbox.state().folders(|n| self.folder_id(n), false);
        self.leave(gate, folder::resolve(&folders, spec).cloned()).await
    }

    pub(super) async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let gate = self.enter(self.call(Operation::CreateFolder)).await?;
        let made = self.make_folder(spec);
        self.leave(gate, made).await
    }

    fn make_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        let mut state = self.mailbox.state();
        if !matches!(spec, FolderSpec::Id(_)) {
            let id = self.folder_id(state.create_folder(spec)?);
            return folder::resolve(&state.folders(|n| self.folder_id(n), false), &FolderSpec::Id(id)).cloned();
        }
        // An id is the service's to give: it can be found, not made.
        folder::resolve(&state.folders(|n| self.folder_id(n), false), spec).cloned()
    }

    pub(super) async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        let gate = self.enter(self.call(Operation::FolderAccess).folder(folder)).await?;
        let access = {
            let state = self.mailbox.state();
            self.folder_number(&state, folder).map(|n| state.access(n))
        };
        self.leave(gate, access).await
    }

    pub(super) fn fetch_messages(
        self: Arc<Self>,
        folder: FolderId,
        query: Query,
    ) -> BoxStream<'static, Result<Message>> {
        let listing = Listing { session: self, folder, query, set: None, given: 0 };
        stream::try_unfold(listing, async |mut listing| Ok(listing.next().await?.map(|message| (message, listing))))
            .boxed()
    }

    pub(super) async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        let gate = self.enter(self.call(Operation::FetchMessage).of(std::slice::from_ref(message))).await?;
        let found = self.find(message);
        let read = match found {
            Ok((number, item)) => self.read(number, &item, &Query::default()).await,
            Err(error) => Err(error),
        };
        self.leave(gate, read).await
    }

    pub(super) fn download(self: Arc<Self>, message: MessageId, attachment: AttachmentId) -> Content {
        Content::from_fn(async move || {
            let mut call = self.call(Operation::Download).of(std::slice::from_ref(&message));
            call.attachment = Some(attachment.clone());
            let gate = self.enter(call).await?;
            match self.content(&message, &attachment) {
                Ok(content) => Ok(self.deliver(gate, content)),
                Err(error) => self.leave(gate, Err(error)).await,
            }
        })
    }

    fn content(&self, message: &MessageId, attachment: &AttachmentId) -> Result<Content> {
        match self.find(message)?.1.body {
            Body::Raw(raw) => Ok(mime::content(mime::Source::Bytes(raw), attachment)),
            Body::Generated(mails, number) => mails.content(number, attachment, self.mailbox.name()),
        }
    }

    /// Passes a download's bytes on, and leaves the gate behind the last one.
    fn deliver(self: Arc<Self>, gate: Gate, content: Content) -> BoxStream<'static, Result<Bytes>> {
        let state = (self, content.into_stream(), gate.twist.cut, Some(gate));
        stream::try_unfold(state, async |(session, mut bytes, mut cut, mut gate)| {
            let Some(open) = gate.take() else { return Ok(None) };
            let mut piece = match bytes.try_next().await {
                Ok(piece) => piece,
                Err(error) => return session.leave(open, Err(error)).await,
            };
            if let Some((left, kind)) = &mut cut {
                let kept = piece.as_ref().map_or(0, Bytes::len).min(usize::try_from(*left).unwrap_or(usize::MAX));
                if kept == 0 {
                    return session.leave(open, Err(scripted(*kind, Operation::Download))).await;
                }
                *left -= kept as u64;
                if let Some(piece) = &mut piece {
                    piece.truncate(kept);
                }
            }
            match piece {
                Some(piece) => Ok(Some((piece, (session, bytes, cut, Some(open))))),
                None => session.leave(open, Ok(None)).await,
            }
        })
        .boxed()
    }

    pub(super) async fn move_all(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        let all = |error: &Error| messages.iter().map(|_| Err(same(error))).collect();
        let gate = match self.enter(self.call(Operation::Move).of(messages).folder(to)).await {
            Ok(gate) => gate,
            Err(error) => return all(&error),
        };
        let mut answers = Vec::with_capacity(messages.len());
        for (done, message) in messages.iter().enumerate() {
            answers.push(match gate.twist.cut {
                Some((after, kind)) if done as u64 >= after => Err(self.place(scripted(kind, Operation::Move))),
                _ => self.move_one(message, to).await,
            });
        }
        match self.leave(gate, Ok(())).await {
            Ok(()) => answers,
            Err(error) => all(&error),
        }
    }

    async fn move_one(&self, message: &MessageId, to: &FolderId) -> Result<MoveOutcome> {
        let call = self.call(Operation::MoveMessage).of(std::slice::from_ref(message)).folder(to);
        let gate = self.enter(call).await?;
        let moved = self.perform_move(message, to);
        self.leave(gate, moved).await
    }

    fn perform_move(&self, message: &MessageId, to: &FolderId) -> Result<MoveOutcome> {
        let mut state = self.mailbox.state();
        let to = self.folder_number(&state, to)?;
        state.writable(to)?;
        let Some(number) = self.lookup(&state, message) else { return Ok(MoveOutcome::Gone) };
        let Some(from) = state.item(number).map(|item| item.folder) else { return Ok(MoveOutcome::Gone) };
        if from != to {
            state.writable(from)?;
        }
        if self.options.copy_only && from != to {
            let copy = state.copy_and_mark(number, to).and_then(|copy| self.handle_in(&state, copy));
            return Ok(copy.map_or(MoveOutcome::Gone, MoveOutcome::CopiedNotRemoved));
        }
        state.relocate(number, to);
        Ok(self.handle_in(&state, number).map_or(MoveOutcome::Gone, MoveOutcome::Moved))
    }

    pub(super) async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        let all = |error: &Error| messages.iter().map(|_| Err(same(error))).collect();
        let gate = match self.enter(self.call(Operation::MarkRead).of(messages)).await {
            Ok(gate) => gate,
            Err(error) => return all(&error),
        };
        let answers = messages.iter().map(|message| self.mark(message, read).map_err(|e| self.place(e))).collect();
        match self.leave(gate, Ok(())).await {
            Ok(()) => answers,
            Err(error) => all(&error),
        }
    }

    fn mark(&self, message: &MessageId, read: bool) -> Result<()> {
        let mut state = self.mailbox.state();
        let number = self.lookup(&state, message);
        let item = number.and_then(|number| state.item_mut(number)).ok_or_else(|| no_message(message))?;
        item.read = read;
        Ok(())
    }

    async fn read(&self, number: u64, item: &Item, query: &Query) -> Result<Message> {
        let id = self.handle(self.mailbox.state().epoch, number, item.location);
        let mut shell = Message::new(id, self.folder_id(item.folder), item.received);
        shell.is_read = item.read;
        if item.unreadable {
            shell.defects.push(Defect::Unreadable);
            return Ok(shell);
        }
        match &item.body {
            Body::Raw(raw) => {
                shell.hints.size = Some(raw.len() as u64);
                mime::read(&mime::Source::Bytes(raw.clone()), shell, query, &self.info.name).await
            }
            Body::Generated(mails, number) => Ok(mails.message(*number, shell, query, self.mailbox.name())),
        }
    }

    // Handles. They carry the account's name, so that one account's mean nothing to another; where they do not survive
    // a move they carry the location as well, and where they were voided their epoch is over.

    fn handle(&self, epoch: u32, number: u64, location: u64) -> MessageId {
        let account = &self.info.account;
        MessageId::new(if self.options.stable_ids {
            format!("{account}:{epoch}-{number}")
        } else {
            format!("{account}:{epoch}-{number}-{location}")
        })
    }

    fn handle_in(&self, state: &State, number: u64) -> Option<MessageId> {
        state.item(number).map(|item| self.handle(state.epoch, number, item.location))
    }

    pub(super) fn handle_of(&self, stored: StoredId) -> Option<MessageId> {
        self.handle_in(&self.mailbox.state(), stored.0)
    }

    pub(super) fn stored(&self, handle: &MessageId) -> Option<StoredId> {
        self.lookup(&self.mailbox.state(), handle).map(StoredId)
    }

    fn lookup(&self, state: &State, handle: &MessageId) -> Option<u64> {
        let numbers = handle.as_str().strip_prefix(&self.info.account)?.strip_prefix(':')?;
        let number = numbers.split('-').nth(1)?.parse().ok()?;
        (self.handle_in(state, number)? == *handle).then_some(number)
    }

    fn find(&self, handle: &MessageId) -> Result<(u64, Item)> {
        let state = self.mailbox.state();
        let number = self.lookup(&state, handle);
        number.and_then(|n| state.item(n).map(|item| (n, item.clone()))).ok_or_else(|| no_message(handle))
    }

    fn folder_id(&self, number: usize) -> FolderId {
        FolderId::new(format!("{}:f{number}", self.info.account))
    }

    fn folder_number(&self, state: &State, id: &FolderId) -> Result<usize> {
        let number = id.as_str().strip_prefix(&self.info.account).and_then(|rest| rest.strip_prefix(":f"));
        number.and_then(|number| number.parse().ok()).filter(|number| state.has_folder(*number)).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("there is no folder with the id `{id}`; it may have been deleted"))
        })
    }

    // The gate.

    fn call(&self, operation: Operation) -> Call {
        Call::new(&self.info.account, operation)
    }

    async fn enter(&self, mut call: Call) -> Result<Gate> {
        // A call of a real service never answers at once, and what runs beside it must get its turn.
        tokio::task::yield_now().await;
        self.mailbox.state().script.enter(&mut call);
        match self.admit(&call).await {
            Ok(twist) => {
                if twist.vanish {
                    let mut state = self.mailbox.state();
                    for message in &call.messages {
                        self.lookup(&state, message).map(|number| state.delete(number));
                    }
                }
                Ok(Gate { call, twist })
            }
            Err(error) => self.leave(Gate { call, twist: Twist::default() }, Err(error)).await,
        }
    }

    async fn admit(&self, call: &Call) -> Result<Twist> {
        self.ask_hook(call).await?;
        let verdict = self.mailbox.state().script.judge(call);
        match verdict {
            Verdict::Go(twist) => Ok(twist),
            Verdict::Fail(error) => Err(error),
            Verdict::Hang => std::future::pending().await,
        }
    }

    async fn leave<T>(&self, gate: Gate, result: Result<T>) -> Result<T> {
        let Gate { mut call, twist } = gate;
        let result = match &twist.lost {
            Some(Effect::Error { kind, retry_after }) => Err(with_pause(scripted(*kind, call.operation), *retry_after)),
            _ => result,
        };
        call.phase = Phase::After;
        call.error = result.as_ref().err().map(Error::kind);
        let method = call.operation.method();
        let result = self.ask_hook(&call).await.and(result);
        if matches!(twist.lost, Some(Effect::Hang)) {
            return std::future::pending().await;
        }
        self.mailbox.state().script.leave(&call);
        result.map_err(|error| self.place(error).with_operation(method))
    }

    async fn ask_hook(&self, call: &Call) -> Result<()> {
        let hook = self.mailbox.state().script.hook.clone();
        match hook.map_or(Reaction::Go, |hook| hook(call)) {
            Reaction::Go => Ok(()),
            Reaction::Fail(error) => Err(error),
            Reaction::Hang => std::future::pending().await,
            Reaction::Wait(ready) => {
                ready.await;
                Ok(())
            }
        }
    }

    fn place(&self, error: Error) -> Error {
        error.with_provider(NAME).with_account(&self.info.account)
    }
}

/// One run through a folder.
struct Listing {
    session: Arc<Session>,
    folder: FolderId,
    query: Query,
    set: Option<Set>,
    given: usize,
}

/// What the first poll found: numbers and locations, nothing else, because there may be many.
struct Set {
    folder: usize,
    epoch: u32,
    messages: std::vec::IntoIter<(u64, u64)>,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<Message>> {
        let set = match &mut self.set {
            Some(set) => set,
            None => {
                let gate = self.session.enter(self.session.call(Operation::FetchMessages).folder(&self.folder)).await?;
                let set = self.session.fix(&self.folder, &self.query);
                self.set.insert(self.session.leave(gate, set).await?)
            }
        };
        while self.query.limit.is_none_or(|limit| self.given < limit) {
            let Some((number, location)) = set.messages.next() else { break };
            let Some(id) = self.session.still_there(set, number, location).map_err(|e| self.session.place(e))? else {
                continue;
            };
            if self.query.skips(&id) {
                continue;
            }
            let call = self.session.call(Operation::NextMessage).of(std::slice::from_ref(&id)).folder(&self.folder);
            let gate = self.session.enter(call).await?;
            let read = self.session.read_listed(&id, &self.query).await;
            if let Some(message) = self.session.leave(gate, read).await? {
                self.given += 1;
                return Ok(Some(message));
            }
        }
        Ok(None)
    }
}

impl Session {
    fn fix(&self, folder: &FolderId, query: &Query) -> Result<Set> {
        let state = self.mailbox.state();
        let folder = self.folder_number(&state, folder)?;
        let messages: Vec<_> = state
            .listed(folder)
            .filter(|(_, item)| !query.unread_only || !item.read)
            .filter(|(_, item)| query.since.is_none_or(|since| item.received >= since))
            .map(|(number, item)| (number, item.location))
            .collect();
        Ok(Set { folder, epoch: state.epoch, messages: messages.into_iter() })
    }

    /// The handle of a message that is still where it was when the set was fixed.
    fn still_there(&self, set: &Set, number: u64, location: u64) -> Result<Option<MessageId>> {
        let state = self.mailbox.state();
        if !state.has_folder(set.folder) || state.epoch != set.epoch {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the folder was deleted or renumbered while it was being read; list it again",
            )
            .with_operation(Operation::FetchMessages.method()));
        }
        let here = |item: &&Item| {
            item.folder == set.folder
                && item.copied_to.is_none()
                && (self.options.stable_ids || item.location == location)
        };
        Ok(state.item(number).filter(here).map(|item| self.handle(state.epoch, number, item.location)))
    }

    /// `None` for a message that has vanished, or is not the one asked for.
    async fn read_listed(&self, id: &MessageId, query: &Query) -> Result<Option<Message>> {
        let Ok((number, item)) = self.find(id) else { return Ok(None) };
        if let Some(wanted) = &query.internet_message_id {
            let envelope = Query { inline_up_to: 0, text: false, headers: Vec::new(), ..query.clone() };
            let message = self.read(number, &item, &envelope).await?;
            if message.internet_message_id.as_deref().map(bare) != Some(bare(wanted)) {
                return Ok(None);
            }
        }
        self.read(number, &item, query).await.map(Some)
    }
}

/// A Message-ID without its angle brackets.
fn bare(id: &str) -> &str {
    id.trim().trim_start_matches('<').trim_end_matches('>')
}

fn no_message(handle: &MessageId) -> Error {
    Error::new(ErrorKind::NotFound, format!("there is no message `{handle}` (any more)"))
}

/// The same error again: each message of a batch gets its own.
fn same(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned());
    if let Some(provider) = error.provider() {
        copy = copy.with_provider(provider.to_owned());
    }
    if let Some(account) = error.account() {
        copy = copy.with_account(account);
    }
    if let Some(operation) = error.operation() {
        copy = copy.with_operation(operation);
    }
    with_pause(copy, error.retry_after())
}
