//! Which message comes next: people's retries first, then the listing, then what the listing did not show, and last
//! of all what may have killed earlier runs.

use super::*;

impl Run<'_> {
    /// Decides about messages until every handler has one; `false` when another run holds the mailbox.
    pub(super) async fn fill(&mut self) -> Result<bool> {
        let mut starting = self.batch.iter().filter(|(_, effect)| matches!(effect, Effect::Start(_))).count();
        while self.ending.is_none()
            && self.batch.len() < BATCH
            && self.in_hand.len() + starting < self.job().handler_concurrency
        {
            let candidate = match self.next().await? {
                Next::Candidate(candidate) => *candidate,
                Next::Wait | Next::End => break,
            };
            if !self.hold().await? {
                self.leave(&candidate.message, Reason::BUSY);
                return Ok(false);
            }
            let judgement = match self.judge(&candidate).await {
                Ok(judgement) => judgement,
                Err(error) => {
                    self.leave(&candidate.message, Reason::ACCOUNT_ERROR);
                    if !error.kind().is_account_wide() {
                        return Err(error);
                    }
                    // Nobody else has failed: what is in hand ends, and is recorded.
                    self.ending = Some(Ending::Failed(error));
                    break;
                }
            };
            match judgement {
                Judgement::HandOver { row, is_new, .. } if self.shared.mode == Mode::Fetch => {
                    let record = self.record(&row, Fate::Left, Some(Reason::WAITING));
                    let row = is_new.then_some(Row { step: Step::Waiting, ..*row });
                    self.batch.push((row, Effect::Tell(Box::new(record), None)));
                }
                Judgement::HandOver { .. } if !self.take_from_limit() => {
                    self.leave(&candidate.message, Reason::LIMIT);
                    self.ending = Some(Ending::Limit);
                    self.look_ahead().await;
                }
                Judgement::HandOver { row, fingerprints, earlier, before, .. } => {
                    let Candidate { message, permit, .. } = candidate;
                    starting += 1;
                    let ready = Ready { row: *row.clone(), message, permit, fingerprints, earlier, before };
                    self.batch.push((Some(*row), Effect::Start(Box::new(ready))));
                }
                Judgement::Settled(fate, reason, row, to_move) => {
                    let mut record = self.record(&row, fate, Some(reason));
                    record.id = candidate.message.id;
                    self.batch.push((None, Effect::Tell(Box::new(record), to_move)));
                }
                Judgement::Update(fate, reason, row) => {
                    let record = self.record(&row, fate, Some(reason));
                    self.batch.push((Some(*row), Effect::Tell(Box::new(record), None)));
                }
                Judgement::Hold(key) => self.held.push_back((key, without_content(candidate))),
                Judgement::Later(row) => {
                    let row = Some(*row);
                    self.later.push_back(without_content(Candidate { row, late: true, ..candidate }));
                }
                Judgement::Last(row) => {
                    let row = Some(*row);
                    self.last.push_back(without_content(Candidate { row, late: true, ..candidate }));
                }
            }
        }
        if self.in_hand.is_empty() && starting == 0 && (self.ending.is_some() || self.is_drained()) {
            self.settle_last_suspects();
        }
        self.count_met().await?;
        Ok(true)
    }

    pub(super) fn take_from_limit(&self) -> bool {
        let Some(limit) = &self.shared.limit else { return true };
        limit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left > 0).then(|| left - 1)).is_ok()
    }

    pub(super) async fn next(&mut self) -> Result<Next> {
        let busy = self.busy_keys();
        if let Some(at) = self.held.iter().position(|(key, _)| !busy.contains(key)) {
            let (_, free) = self.held.remove(at).expect("just found");
            return Ok(Next::Candidate(Box::new(free)));
        }
        if self.shared.mode != Mode::Fetch {
            while let Some(name) = self.retries.pop_front() {
                let Some(row) = self.row_named(&name).await? else { continue };
                if let Some(candidate) = self.find_waiting(row).await? {
                    return Ok(Next::Candidate(Box::new(candidate)));
                }
            }
        }
        if let Some(listed) = self.incoming.pop_front() {
            return self.take_listed(listed);
        }
        if let Some(listing) = &mut self.listing {
            return match listing.messages.try_recv() {
                Ok(listed) => self.take_listed(listed),
                Err(mpsc::error::TryRecvError::Empty) => Ok(Next::Wait),
                Err(mpsc::error::TryRecvError::Disconnected) => {
                    self.listing = None;
                    Ok(Next::Wait)
                }
            };
        }
        // The listing is over. What is pending and was not in it is looked for.
        self.count_met().await?;
        if self.known.has_met() {
            return Ok(Next::Wait);
        }
        if self.unseen.is_none() {
            let names = std::mem::take(&mut self.pending);
            let mut names: Vec<_> = names.into_iter().map(|(name, received)| (received, name)).collect();
            names.sort_unstable();
            self.unseen = Some(names.into());
        }
        while let Some((_, name)) = self.unseen.as_mut().and_then(VecDeque::pop_front) {
            if self.shared.mode == Mode::Fetch {
                continue;
            }
            let Some(row) = self.row_named(&name).await? else { continue };
            if let Some(candidate) = self.settle_unseen(row).await? {
                return Ok(Next::Candidate(Box::new(candidate)));
            }
            if self.batch.len() >= BATCH {
                return Ok(Next::Wait);
            }
        }
        if let Some(candidate) = self.later.pop_front() {
            return Ok(Next::Candidate(Box::new(candidate)));
        }
        if self.held.is_empty() && self.in_hand.is_empty() && self.batch.is_empty() {
            if let Some(candidate) = self.last.pop_front() {
                return Ok(Next::Candidate(Box::new(candidate)));
            }
            return Ok(Next::End);
        }
        Ok(Next::Wait)
    }

    pub(super) fn take_listed(&mut self, listed: Listed) -> Result<Next> {
        match listed {
            Ok((message, permit)) => {
                self.report.counts.seen += 1;
                let message = with_itself(message);
                Ok(Next::Candidate(Box::new(Candidate { message, permit, row: None, late: false })))
            }
            Err(error) => {
                self.listing = None;
                self.ending.get_or_insert(Ending::Failed(error));
                Ok(Next::End)
            }
        }
    }

    /// Keys about which the ledger does not have the last word yet.
    pub(super) fn busy_keys(&self) -> HashSet<MessageKey> {
        let unwritten = self.batch.iter().filter_map(|(row, _)| row.as_ref().map(|row| row.key.clone()));
        self.in_hand.values().map(|hand| hand.row.key.clone()).chain(unwritten).collect()
    }

    /// Messages whose handle was known, so that the listing left them out; as many as a commit has room for.
    pub(super) async fn count_met(&mut self) -> Result<()> {
        while self.batch.len() < BATCH
            && let Some(id) = self.known.next_met()
        {
            self.report.counts.seen += 1;
            let found = self.rows_of(&id, None).await?;
            let Some(row) = found.into_iter().find(|row| row.account == self.me && row.handle == id) else {
                // Another run has moved on with it between our look at the ledger and our listing.
                let record = MessageRecord {
                    account: self.me.clone(),
                    key: None,
                    id,
                    internet_message_id: None,
                    subject: None,
                    from: None,
                    received: self.now(),
                    fate: Fate::AlreadyDone,
                    reason: Some(Reason::ALREADY_DONE),
                    will_retry: false,
                    delivery: None,
                };
                self.batch.push((None, Effect::Tell(Box::new(record), None)));
                continue;
            };
            self.pending.remove(&name(&row));
            match row.step {
                Step::Waiting | Step::Claimed => {
                    let reason = row.reason.clone().unwrap_or(Reason::WAITING);
                    let record = self.record(&row, Fate::Left, Some(reason));
                    self.batch.push((None, Effect::Tell(Box::new(record), None)));
                }
                Step::Handled | Step::Done => {
                    let record = self.record(&row, Fate::AlreadyDone, Some(settled_reason(&row)));
                    let to_move = self.still_to_move(&row);
                    self.batch.push((None, Effect::Tell(Box::new(record), to_move)));
                }
            }
        }
        Ok(())
    }

    pub(super) fn still_to_move(&self, row: &Row) -> Option<ToMove> {
        if row.step != Step::Handled || self.lease.is_none() {
            return None;
        }
        let place = self.wanted_in(row.outcome).filter(|place| *place != row.place)?;
        let mut row = row.clone();
        row.run = self.token();
        Some(ToMove { id: row.handle.clone(), row: Some(Box::new(row)), place })
    }

    /// A row that waits for a hand-over, outside the listing: finds its message.
    pub(super) async fn find_waiting(&mut self, row: Row) -> Result<Option<Candidate>> {
        let mut folders = vec![self.import.clone()];
        folders.extend(self.failed.iter().map(|f| f.id.clone()));
        self.report.counts.seen += 1;
        let found = match self.locate(&row, &folders).await {
            Ok(found) => found,
            Err(error) => {
                let record = self.record(&row, Fate::Left, Some(Reason::ACCOUNT_ERROR));
                self.tell(record);
                return Err(error);
            }
        };
        let Some(message) = found else {
            self.settle_gone(row);
            return Ok(None);
        };
        Ok(Some(Candidate { message: with_itself(message), permit: None, row: Some(row), late: false }))
    }

    /// A row that the complete listing did not show.
    pub(super) async fn settle_unseen(&mut self, row: Row) -> Result<Option<Candidate>> {
        match row.step {
            Step::Waiting | Step::Claimed => {
                if is_idle(&row, self.now()) {
                    Ok(None)
                } else {
                    self.find_waiting(row).await
                }
            }
            Step::Done => {
                // A retry whose message lies in the import folder, but was not listed.
                if row.retry { self.find_waiting(row).await } else { Ok(None) }
            }
            Step::Handled => {
                self.report.counts.seen += 1;
                let record = self.record(&row, Fate::AlreadyDone, Some(settled_reason(&row)));
                let Some(place) = self.wanted_in(row.outcome) else {
                    // The job's folder was taken out of its settings: nothing is left to do.
                    self.done(row);
                    self.tell(record);
                    return Ok(None);
                };
                if row.account == self.me {
                    let to_move = self.still_to_move(&row);
                    if to_move.is_none() {
                        self.done(row);
                    }
                    self.batch.push((None, Effect::Tell(Box::new(record), to_move)));
                    return Ok(None);
                }
                // Settled under another account of this mailbox: its handle says nothing here.
                self.tell(record);
                let import = self.import.clone();
                if let Some(message) = self.locate(&row, &[import]).await? {
                    let row = Row { run: self.token(), ..row };
                    let to_move = ToMove { id: message.id, row: Some(Box::new(row)), place };
                    self.queue_move(to_move);
                    return Ok(None);
                }
                let folder: Vec<_> = self.folder_of(place).cloned().into_iter().collect();
                match self.locate(&row, &folder).await? {
                    Some(message) => self.moved(Some(Box::new(row)), message.id, place),
                    None => {
                        self.report.counts.unmoved += 1;
                        self.done(row);
                    }
                }
                Ok(None)
            }
        }
    }

    /// The message that a row is about, in one of these folders: by its handle if it is ours, else by what it is.
    pub(super) async fn locate(&self, row: &Row, folders: &[FolderId]) -> Result<Option<Message>> {
        if row.account == self.me {
            match self.account.fetch_message(&row.handle).await {
                Ok(message) if folders.contains(&message.folder) => return Ok(Some(message)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        for folder in folders {
            let query = match &row.internet_message_id {
                Some(id) => Query::default().with_internet_message_id(id.clone()),
                None => Query::default().with_since(Timestamp::from_second(row.received.as_second() - DAY).ok()),
            };
            let mut stream = self.account.fetch_messages(folder, query);
            while let Some(message) = stream.try_next().await? {
                let evidence = Evidence::of(&message);
                if !Evidence::of_row(row).agrees(&evidence, true) {
                    continue;
                }
                let compared = match row.digest {
                    Digest::Known(_) => self.read_digest(&message, &Fingerprints::of(&message.attachments)).await?,
                    // There is nothing to compare with; the evidence must do.
                    other => other,
                };
                if row.digest == compared {
                    return Ok(Some(message));
                }
            }
        }
        Ok(None)
    }

    pub(super) async fn is_gone(&self, id: &MessageId) -> Result<bool> {
        match self.account.fetch_message(id).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// A message of which nothing could be read looks as if nothing were attached. The host is given all of it instead, to
/// be kept like any attachment; if that cannot be read either, the hand-over fails and is tried again.
fn with_itself(mut message: Message) -> Message {
    if message.attachments.is_empty() && message.defects.contains(&Defect::Unreadable) {
        let mut itself = Attachment::new(AttachmentId::raw(), "message/rfc822");
        itself.kind = AttachmentKind::Item;
        message.attachments.push(itself);
    }
    message
}
