//! Moving messages, and knowing what became of them.
//!
//! An answer is believed when it names the message; otherwise both folders are looked at. A try that may have had an
//! effect is never simply repeated.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, PoisonError},
};

use bytes::Bytes;

use super::{
    evidence::{self, Evidence},
    failure::{Failure, Outcome},
    folders,
    handle::{Handle, folder_name},
    pool::Shared,
    session::Session,
    wire::{
        encode::Command,
        response::Untagged,
        status::{Code, Condition, Status},
        uidset::{self, Cut},
    },
};
use crate::{Error, ErrorKind, FolderId, MessageId, MoveOutcome, Result};

/// Messages in one command. Bounded because a set is not moved as one, and each of its members may have to be looked up.
pub(crate) const BATCH: usize = 200;
const SETS: Cut = Cut { count: BATCH, bytes: u64::MAX, line: uidset::MAX_SET };

pub(crate) async fn move_all(shared: &Arc<Shared>, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
    let dest = folder_name(to);
    let mut results: Vec<Option<Result<MoveOutcome>>> = messages.iter().map(|_| None).collect();
    for (folder, epoch, members) in groups(messages, &mut results) {
        let mut rest: Vec<u64> = members.keys().copied().collect();
        while !rest.is_empty() {
            let sized: Vec<(u64, u64)> = rest.iter().map(|uid| (*uid, 0)).collect();
            let tail = rest.split_off(uidset::cut(&sized, SETS));
            let set = std::mem::replace(&mut rest, tail);
            let mut moving = Moving::new(shared, &folder, &epoch, &dest, &set);
            let failed = moving.run().await.err();
            for uid in set {
                let outcome = match (moving.done.remove(&uid), &failed) {
                    (Some(outcome), _) => outcome,
                    (None, Some(error)) => Err(again(error)),
                    (None, None) => Ok(MoveOutcome::Gone),
                };
                for at in &members[&uid] {
                    results[*at] = Some(match &outcome {
                        Ok(outcome) => Ok(outcome.clone()),
                        Err(error) => Err(again(error)),
                    });
                }
            }
            // The account failed, so the rest would fail in the same way, only more slowly.
            if let Some(error) = failed.filter(|e| e.kind().is_account_wide()) {
                for result in results.iter_mut().filter(|r| r.is_none()) {
                    *result = Some(Err(again(&error)));
                }
                break;
            }
        }
    }
    let placed = |result: Option<Result<MoveOutcome>>| match result {
        Some(Err(error)) => Err(shared.place(error, "move_to_processed")),
        Some(ok) => ok,
        None => Ok(MoveOutcome::Gone),
    };
    results.into_iter().map(placed).collect()
}

type Groups = Vec<(Bytes, String, std::collections::BTreeMap<u64, Vec<usize>>)>;

/// Messages by folder and numbering; a handle that is none gets its error at once.
fn groups<T>(messages: &[MessageId], results: &mut [Option<Result<T>>]) -> Groups {
    let mut groups: Groups = Vec::new();
    for (at, id) in messages.iter().enumerate() {
        match Handle::parse(id) {
            Err(error) => results[at] = Some(Err(error)),
            Ok(handle) => {
                let known = groups.iter().position(|(f, e, _)| *f == handle.folder && *e == handle.epoch);
                let group = known.unwrap_or_else(|| {
                    groups.push((handle.folder, handle.epoch, std::collections::BTreeMap::new()));
                    groups.len() - 1
                });
                groups[group].2.entry(handle.uid).or_default().push(at);
            }
        }
    }
    groups
}

/// The same error for another message.
pub(crate) fn again(error: &Error) -> Error {
    let mut copy = Error::new(error.kind(), error.message().to_owned());
    if let Some(code) = error.code() {
        copy = copy.with_code(code);
    }
    if let Some(wait) = error.retry_after() {
        copy = copy.with_retry_after(wait);
    }
    copy
}

/// One set on its way.
struct Moving<'a> {
    shared: &'a Arc<Shared>,
    folder: &'a Bytes,
    epoch: &'a str,
    dest: &'a Bytes,
    pending: BTreeSet<u64>,
    done: HashMap<u64, Result<MoveOutcome>>,
    evidence: HashMap<u64, Evidence>,
    /// A command has been sent that may have moved or copied some of them.
    asked: bool,
}

impl<'a> Moving<'a> {
    fn new(shared: &'a Arc<Shared>, folder: &'a Bytes, epoch: &'a str, dest: &'a Bytes, set: &[u64]) -> Self {
        let known = shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        let evidence = set
            .iter()
            .filter_map(|uid| {
                let handle = Handle { folder: folder.clone(), epoch: epoch.to_owned(), uid: *uid };
                Some((*uid, known.get(&handle.id())?))
            })
            .collect();
        Self {
            shared,
            folder,
            epoch,
            dest,
            pending: set.iter().copied().collect(),
            done: HashMap::new(),
            evidence,
            asked: false,
        }
    }

    async fn run(&mut self) -> Result<()> {
        let mut attempts = self.shared.attempts();
        while !self.pending.is_empty() {
            let mut lease = attempts.lease(Some(self.folder)).await?;
            match self.step(&mut lease).await {
                Ok(()) => lease.done(),
                Err(failure) => attempts.failed(lease, failure).await?,
            }
        }
        Ok(())
    }

    fn uids(&self) -> Vec<u64> {
        self.pending.iter().copied().collect()
    }

    fn is_same_folder(&self) -> bool {
        super::handle::folder_id(self.folder) == super::handle::folder_id(self.dest)
    }

    async fn step(&mut self, session: &mut Session) -> Outcome<()> {
        self.open(session).await?;
        if self.is_same_folder() {
            let here = evidence::present(session, &self.uids()).await?;
            for uid in self.uids() {
                let outcome = match here.contains(&uid) {
                    true => MoveOutcome::Moved(self.id(self.folder, self.epoch.to_owned(), uid)),
                    false => MoveOutcome::Gone,
                };
                self.settle(uid, Ok(outcome));
            }
            return Ok(());
        }
        if self.asked {
            session.look_again(self.folder, true).await?;
            self.settle_absent(session, None).await?;
            self.open(session).await?;
        }
        self.learn(session).await?;
        if self.pending.is_empty() {
            return Ok(());
        }
        if session.offered.has("MOVE") { self.by_move(session).await } else { self.by_copy(session).await }
    }

    async fn open(&mut self, session: &mut Session) -> Outcome<()> {
        let write = !self.is_same_folder();
        let open = session.open(self.folder, write).await?;
        if self.shared.epoch(open.validity) != self.epoch {
            return Err(Failure::Voided);
        }
        if write && !(open.writable && open.can_delete) {
            return Err(Failure::ReadOnly { folder: folders::path(self.shared, self.folder) });
        }
        Ok(())
    }

    /// Makes sure that each message could be recognised elsewhere, before anything is done to it.
    async fn learn(&mut self, session: &mut Session) -> Outcome<()> {
        let unknown: Vec<u64> = self.pending.iter().copied().filter(|uid| !self.evidence.contains_key(uid)).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        self.evidence.extend(evidence::gather(session, &unknown).await?);
        let silent: Vec<u64> = unknown.into_iter().filter(|uid| !self.evidence.contains_key(uid)).collect();
        if silent.is_empty() {
            return Ok(());
        }
        let here = evidence::present(session, &silent).await?;
        for uid in silent {
            if here.contains(&uid) {
                // There, but unreadable: it can be moved, and not be recognised.
                self.evidence.insert(uid, Evidence::default());
            } else {
                // Not here, and nothing to look for elsewhere by.
                self.settle(uid, Ok(MoveOutcome::Gone));
            }
        }
        Ok(())
    }

    async fn by_move(&mut self, session: &mut Session) -> Outcome<()> {
        let mut copied = HashMap::new();
        self.asked = true;
        let answer = self.transfer(session, "UID MOVE", &self.uids(), &mut copied).await;
        let refused = match answer {
            Ok(()) => {
                for (uid, id) in &copied {
                    self.settle(*uid, Ok(MoveOutcome::Moved(id.clone())));
                }
                None
            }
            Err(Failure::Refused { status, .. }) if status.condition == Condition::No => {
                let lacking = session.is_missing(self.dest, &status).await?;
                Some((status, lacking))
            }
            Err(other) => return Err(other),
        };
        if self.pending.is_empty() {
            return Ok(());
        }
        // Whatever the server said, it did not say what became of these.
        let here = self.settle_absent(session, Some(&copied)).await?;
        for uid in here {
            let error = match &refused {
                Some((_, true)) => self.no_dest(),
                Some((status, false)) => Failure::Refused { command: "UID MOVE", status: status.clone() }.into(),
                None => Error::new(
                    ErrorKind::Other,
                    "the server reported that it had moved the message, but the message is where it was",
                ),
            };
            self.settle(uid, Err(error));
        }
        Ok(())
    }

    /// COPY, then flag, then remove exactly these; or leave them flagged where the server would remove others as well.
    async fn by_copy(&mut self, session: &mut Session) -> Outcome<()> {
        // A try before this one, perhaps of a process that is dead by now, may have copied already.
        let wanted = self.wanted();
        let mut copies: HashMap<u64, MessageId> = HashMap::new();
        let there = self.find_there(session, &wanted, None).await?;
        let dest = session.selected.as_ref();
        let epoch = dest.map(|open| self.shared.epoch(open.validity)).unwrap_or_default();
        let next = dest.filter(|open| open.folder == *self.dest).and_then(|open| open.next);
        for (uid, found) in there {
            copies.insert(uid, self.id(self.dest, epoch.clone(), found));
        }
        self.open(session).await?;
        let missing: Vec<u64> = self.pending.iter().copied().filter(|uid| !copies.contains_key(uid)).collect();
        if !missing.is_empty() {
            self.asked = true;
            let mut copied = HashMap::new();
            match self.transfer(session, "UID COPY", &missing, &mut copied).await {
                Ok(()) => copies.extend(copied),
                Err(Failure::Refused { status, .. }) if status.condition == Condition::No => {
                    let lacking = session.is_missing(self.dest, &status).await?;
                    // COPY is all or nothing (RFC 9051, section 6.4.7), so the originals are untouched.
                    let here = self.settle_absent(session, None).await?;
                    for uid in here.into_iter().filter(|uid| missing.contains(uid)) {
                        let error = match lacking {
                            true => self.no_dest(),
                            false => Failure::Refused { command: "UID COPY", status: status.clone() }.into(),
                        };
                        self.settle(uid, Err(error));
                    }
                    return Ok(());
                }
                Err(other) => return Err(other),
            }
            let unnamed: Vec<(u64, Evidence)> =
                self.wanted().into_iter().filter(|(uid, _)| !copies.contains_key(uid)).collect();
            if !unnamed.is_empty() {
                let there = self.find_there(session, &unnamed, next).await?;
                let epoch = session.selected.as_ref().map(|o| self.shared.epoch(o.validity)).unwrap_or_default();
                for (uid, found) in there {
                    copies.insert(uid, self.id(self.dest, epoch.clone(), found));
                }
                self.open(session).await?;
            }
        }
        self.remove(session, copies).await
    }

    /// The originals of these copies go.
    async fn remove(&mut self, session: &mut Session, copies: HashMap<u64, MessageId>) -> Outcome<()> {
        let mut uids: Vec<u64> = copies.keys().copied().collect();
        uids.sort_unstable();
        if !uids.is_empty() {
            let flag = Command::new("UID STORE").set(&uids).raw("+FLAGS.SILENT (\\Deleted)");
            session.run(flag, |_| {}).await?;
        }
        // EXPUNGE and CLOSE would remove whatever anybody else has flagged, so without UIDPLUS there is neither.
        let removes = session.offered.has("UIDPLUS");
        if removes && !uids.is_empty() {
            session.run(Command::new("UID EXPUNGE").set(&uids), |_| {}).await?;
        }
        for (uid, id) in copies {
            let outcome = if removes { MoveOutcome::Moved(id) } else { MoveOutcome::CopiedNotRemoved(id) };
            self.settle(uid, Ok(outcome));
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let here = evidence::present(session, &self.uids()).await?;
        for uid in self.uids() {
            if !here.contains(&uid) {
                self.settle(uid, Ok(MoveOutcome::Gone));
                continue;
            }
            let text = "the message was copied, but the copy cannot be found, so the original was left alone";
            self.settle(uid, Err(Error::new(ErrorKind::Other, text)));
        }
        Ok(())
    }

    /// Sends the set over; `copied` gets what the server names.
    async fn transfer(
        &self,
        session: &mut Session,
        command: &'static str,
        uids: &[u64],
        copied: &mut HashMap<u64, MessageId>,
    ) -> Outcome<()> {
        let mut note = |status: &Status| {
            if let Some(Code::CopyUid { validity, pairs }) = &status.code {
                let epoch = self.shared.epoch(*validity);
                for (from, to) in pairs.iter().filter(|(from, to)| uids.contains(from) && *to > 0) {
                    copied.insert(*from, self.id(self.dest, epoch.clone(), *to));
                }
            }
        };
        let status = session
            .run(Command::new(command).set(uids).string(self.dest), |untagged| {
                if let Untagged::Status(status) = untagged {
                    note(&status);
                }
            })
            .await?;
        note(&status);
        Ok(())
    }

    /// The target is not made here: which folders exist is for the mailbox's owner to decide, and a mistyped one should
    /// not come to life.
    fn no_dest(&self) -> Error {
        Error::new(
            ErrorKind::NotFound,
            format!("there is no folder `{}` to move messages to", folders::path(self.shared, self.dest)),
        )
    }

    /// Looks which of the pending messages are still in their folder, and settles those that are not: moved, if they
    /// are found in the other one. Returns the rest.
    async fn settle_absent(
        &mut self,
        session: &mut Session,
        copied: Option<&HashMap<u64, MessageId>>,
    ) -> Outcome<Vec<u64>> {
        let here = evidence::present(session, &self.uids()).await?;
        let mut absent: Vec<u64> = self.uids().into_iter().filter(|uid| !here.contains(uid)).collect();
        absent.retain(|uid| match copied.and_then(|copied| copied.get(uid)) {
            Some(id) => {
                self.settle(*uid, Ok(MoveOutcome::Moved(id.clone())));
                false
            }
            None => true,
        });
        if !absent.is_empty() {
            let wanted: Vec<(u64, Evidence)> =
                self.wanted().into_iter().filter(|(uid, _)| absent.contains(uid)).collect();
            let there = self.find_there(session, &wanted, None).await?;
            let epoch = session.selected.as_ref().map(|o| self.shared.epoch(o.validity)).unwrap_or_default();
            for uid in absent {
                let outcome = match there.get(&uid) {
                    Some(found) => MoveOutcome::Moved(self.id(self.dest, epoch.clone(), *found)),
                    None => MoveOutcome::Gone,
                };
                self.settle(uid, Ok(outcome));
            }
        }
        Ok(self.uids())
    }

    /// `since`: the least UID there that one of them can have, where that is known.
    async fn find_there(
        &self,
        session: &mut Session,
        wanted: &[(u64, Evidence)],
        since: Option<u64>,
    ) -> Outcome<HashMap<u64, u64>> {
        match evidence::find(session, self.dest, wanted, since).await {
            // A folder that is not there holds nothing. An outage is another matter.
            Err(Failure::NoFolder { .. }) => Ok(HashMap::new()),
            found => found,
        }
    }

    fn wanted(&self) -> Vec<(u64, Evidence)> {
        self.pending.iter().filter_map(|uid| Some((*uid, self.evidence.get(uid)?.clone()))).collect()
    }

    fn id(&self, folder: &Bytes, epoch: String, uid: u64) -> MessageId {
        Handle { folder: folder.clone(), epoch, uid }.id()
    }

    fn settle(&mut self, uid: u64, outcome: Result<MoveOutcome>) {
        if let Ok(MoveOutcome::Moved(id) | MoveOutcome::CopiedNotRemoved(id)) = &outcome
            && let Some(evidence) = self.evidence.get(&uid)
        {
            // It may be moved on from there.
            self.shared.known.lock().unwrap_or_else(PoisonError::into_inner).note(id, evidence.clone());
        }
        self.pending.remove(&uid);
        self.done.insert(uid, outcome);
    }
}

pub(crate) async fn mark_read(shared: &Arc<Shared>, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
    let mut results: Vec<Option<Result<()>>> = messages.iter().map(|_| None).collect();
    for (folder, epoch, members) in groups(messages, &mut results) {
        let uids: Vec<u64> = members.keys().copied().collect();
        let marked = mark(shared, &folder, &epoch, &uids, read).await;
        for (uid, places) in members {
            for at in places {
                results[at] = Some(match &marked {
                    Ok(present) if present.contains(&uid) => Ok(()),
                    Ok(_) => Err(Error::new(ErrorKind::NotFound, "the message is no longer in its folder")),
                    Err(error) => Err(again(error)),
                });
            }
        }
    }
    let placed = |result: Option<Result<()>>| result.unwrap_or(Ok(())).map_err(|e| shared.place(e, "mark_read"));
    results.into_iter().map(placed).collect()
}

async fn mark(
    shared: &Arc<Shared>,
    folder: &Bytes,
    epoch: &str,
    uids: &[u64],
    read: bool,
) -> Result<std::collections::HashSet<u64>> {
    let mut attempts = shared.attempts();
    loop {
        let mut lease = attempts.lease(Some(folder)).await?;
        match mark_on(&mut lease, shared, folder, epoch, uids, read).await {
            Ok(present) => {
                lease.done();
                return Ok(present);
            }
            Err(failure) => attempts.failed(lease, failure).await?,
        }
    }
}

async fn mark_on(
    session: &mut Session,
    shared: &Shared,
    folder: &Bytes,
    epoch: &str,
    uids: &[u64],
    read: bool,
) -> Outcome<std::collections::HashSet<u64>> {
    let open = session.open(folder, true).await?;
    if shared.epoch(open.validity) != epoch {
        return Err(Failure::Voided);
    }
    if !open.writable {
        return Err(Failure::ReadOnly { folder: folders::path(shared, folder) });
    }
    let present = evidence::present(session, uids).await?;
    let mut rest: Vec<u64> = uids.iter().copied().filter(|uid| present.contains(uid)).collect();
    while !rest.is_empty() {
        let sized: Vec<(u64, u64)> = rest.iter().map(|uid| (*uid, 0)).collect();
        let tail = rest.split_off(uidset::cut(&sized, SETS));
        let items = if read { "+FLAGS.SILENT (\\Seen)" } else { "-FLAGS.SILENT (\\Seen)" };
        session.run(Command::new("UID STORE").set(&rest).raw(items), |_| {}).await?;
        rest = tail;
    }
    Ok(present)
}
