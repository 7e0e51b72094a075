//! What to do with one message: is it new, known, settled, put back, a copy?

use super::*;

impl Run<'_> {
    pub(super) async fn judge(&mut self, candidate: &Candidate) -> Result<Judgement> {
        let message = &candidate.message;
        let fingerprints = Fingerprints::of(&message.attachments);
        if let Some(row) = &candidate.row {
            self.pending.remove(&name(row));
            // Its step may have changed while it was held back.
            let fresh = self.rows_of(&row.handle, Some(&row.key)).await?;
            if let Some(row) = fresh.into_iter().find(|r| name(r) == name(row)) {
                return self.judge_known(message, row, fingerprints, candidate.late).await;
            }
        }
        let evidence = Evidence::of(message);
        let mid = message.internet_message_id.as_deref().and_then(MessageKey::of_message_id);
        let busy = self.busy_keys();
        if let Some(key) = mid.as_ref().filter(|key| busy.contains(key)) {
            return Ok(Judgement::Hold(key.clone()));
        }
        let mut rows = self.rows_of(&message.id, mid.as_ref()).await?;
        if let Some(at) = rows.iter().position(|row| row.account == self.me && row.handle == message.id) {
            let row = rows.swap_remove(at);
            self.pending.remove(&name(&row));
            return self.judge_known(message, row, fingerprints, false).await;
        }
        let mut duplicate_of = None;
        let mut digest = Digest::Unknown;
        let key = match mid {
            Some(key) => {
                if !rows.is_empty() {
                    digest = self.read_digest(message, &fingerprints).await?;
                    for row in &rows {
                        match same(row, digest, &evidence) {
                            Relation::Same => return self.recognise(message, row.clone(), digest, fingerprints).await,
                            Relation::Unproven => duplicate_of = Some((row.key.clone(), row.discriminator)),
                            Relation::Other => {}
                        }
                    }
                }
                key
            }
            None => {
                digest = comparable(self.read_digest(message, &fingerprints).await?, message);
                let key = MessageKey::without_message_id(digest, &evidence);
                if busy.contains(&key) {
                    return Ok(Judgement::Hold(key));
                }
                rows = self.rows_of(&message.id, Some(&key)).await?;
                for row in rows.iter().filter(|row| row.key == key) {
                    if same_without_message_id(row, digest, &evidence) {
                        return self.recognise(message, row.clone(), digest, fingerprints).await;
                    }
                }
                key
            }
        };
        // One side without a Message-ID: the other may have been made up by the service.
        let what = Find::Subject {
            subject_norm: &evidence.subject,
            without_message_id: message.internet_message_id.is_some(),
        };
        for row in self.shared.ledger.find(&self.scope, what).await? {
            if row.key == key || !Evidence::of_row(&row).agrees(&evidence, true) {
                continue;
            }
            if digest == Digest::Unknown {
                digest = comparable(self.read_digest(message, &fingerprints).await?, message);
            }
            if same_without_message_id(&row, digest, &evidence) {
                return self.recognise(message, row, digest, fingerprints).await;
            }
        }
        let now = self.now();
        let discriminator =
            rows.iter().filter(|row| row.key == key).map(|row| row.discriminator + 1).max().unwrap_or(0);
        let row = Row {
            key,
            discriminator,
            step: Step::Claimed,
            outcome: None,
            reason: None,
            deliveries: 1,
            attempts: 0,
            deaths: 0,
            last_attempt: None,
            next_attempt: None,
            retry: false,
            account: self.me.clone(),
            handle: message.id.clone(),
            place: Place::Import,
            run: self.token(),
            digest,
            sent_second: evidence.sent_second,
            sender: evidence.sender,
            subject_norm: evidence.subject,
            subject: message.subject.clone(),
            from: message.from.clone(),
            internet_message_id: message.internet_message_id.clone(),
            received: message.received,
            first_seen: now,
            possible_duplicate_of: duplicate_of,
        };
        Ok(Judgement::HandOver { row: Box::new(row), fingerprints, earlier: None, before: (0, None), is_new: true })
    }

    pub(super) async fn rows_of(&self, id: &MessageId, key: Option<&MessageKey>) -> Result<Vec<Row>> {
        let nothing = MessageKey::nothing();
        let what = Find::Message { account: &self.me, handle: id, key: key.unwrap_or(&nothing) };
        self.shared.ledger.find(&self.scope, what).await
    }

    pub(super) async fn row_named(&self, name: &RowName) -> Result<Option<Row>> {
        let (key, discriminator) = name;
        let what = Find::Message { account: "", handle: &MessageId::new(""), key };
        let rows = self.shared.ledger.find(&self.scope, what).await?;
        Ok(rows.into_iter().find(|row| row.discriminator == *discriminator && row.key == *key))
    }

    /// A message recognised by what it is, not by its handle.
    pub(super) async fn recognise(
        &mut self,
        message: &Message,
        mut row: Row,
        digest: Digest,
        fingerprints: Fingerprints,
    ) -> Result<Judgement> {
        if self.busy_keys().contains(&row.key) {
            return Ok(Judgement::Hold(row.key));
        }
        let open = self.pending.remove(&name(&row)).is_some() || row.step != Step::Done;
        if digest != Digest::Unknown {
            row.digest = digest;
        }
        if open {
            // Not settled yet, so it goes on under the handle that works here.
            let moved_on = row.account != self.me || row.step != Step::Handled;
            if moved_on {
                row.account.clone_from(&self.me);
                row.handle = message.id.clone();
                row.place = Place::Import;
            }
        }
        self.judge_known(message, row, fingerprints, false).await
    }

    pub(super) async fn judge_known(
        &mut self,
        message: &Message,
        mut row: Row,
        fingerprints: Fingerprints,
        late: bool,
    ) -> Result<Judgement> {
        let before = (row.attempts, row.next_attempt);
        match row.step {
            Step::Claimed => {
                // A run died with it in hand: the same delivery again.
                if row.deaths >= DEATHS_BEFORE_LAST && !late {
                    return Ok(Judgement::Last(Box::new(row)));
                }
            }
            Step::Waiting => {
                if is_idle(&row, self.now()) {
                    let reason = row.reason.clone().unwrap_or(Reason::WAITING);
                    return Ok(Judgement::Settled(Fate::Left, reason, Box::new(row), None));
                }
                // Without a time for the next attempt, the last one was given back.
                if !late && !row.retry && row.last_attempt.is_some() && row.next_attempt.is_none() {
                    return Ok(Judgement::Later(Box::new(row)));
                }
                row.deliveries += 1;
            }
            Step::Handled => {
                let Some(place) = self.wanted_in(row.outcome) else {
                    row.step = Step::Done;
                    return Ok(Judgement::Update(Fate::AlreadyDone, settled_reason(&row), Box::new(row)));
                };
                row.run = self.token();
                let reason = settled_reason(&row);
                let to_move = ToMove { id: message.id.clone(), row: Some(Box::new(row.clone())), place };
                return Ok(Judgement::Settled(Fate::AlreadyDone, reason, Box::new(row), Some(to_move)));
            }
            Step::Done if row.retry || row.outcome == Some(Recorded::Gone) => {
                row.deliveries += 1;
                row.attempts = 0;
            }
            Step::Done => return self.judge_settled(message, row, fingerprints).await,
        }
        let earlier = None;
        Ok(self.hand_over(message, row, fingerprints, earlier, before))
    }

    /// Found in the import folder although it was settled.
    pub(super) async fn judge_settled(
        &mut self,
        message: &Message,
        mut row: Row,
        fingerprints: Fingerprints,
    ) -> Result<Judgement> {
        let place = self.wanted_in(row.outcome);
        let mine = row.account == self.me;
        if row.place == Place::Import {
            // It was to stay there, and is known under this handle or, after a swap, under another.
            let reason = settled_reason(&row);
            let renamed = !mine || (row.handle != message.id && self.is_gone(&row.handle).await?);
            row.run = self.token();
            if renamed {
                row.account.clone_from(&self.me);
                row.handle = message.id.clone();
            }
            if let Some(place) = place {
                let own = row.handle == message.id;
                if own {
                    row.step = Step::Handled;
                }
                let to_move = ToMove { id: message.id.clone(), row: own.then(|| Box::new(row.clone())), place };
                return Ok(Judgement::Settled(Fate::AlreadyDone, reason, Box::new(row), Some(to_move)));
            }
            return Ok(if renamed {
                Judgement::Update(Fate::AlreadyDone, reason, Box::new(row))
            } else {
                Judgement::Settled(Fate::AlreadyDone, reason, Box::new(row), None)
            });
        }
        if mine && row.run != self.token() {
            let here = match self.account.fetch_message(&message.id).await {
                Ok(fresh) => fresh.folder == self.import,
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            };
            if !here {
                // The listing was made before an earlier run moved it.
                return Ok(Judgement::Settled(Fate::AlreadyDone, settled_reason(&row), Box::new(row), None));
            }
            if row.handle == message.id || self.copy_is_gone(&row).await? {
                let earlier = row.outcome.map(|outcome| Earlier { outcome, at: row.last_attempt });
                let before = (0, None);
                row.deliveries += 1;
                row.attempts = 0;
                return Ok(self.hand_over(message, row, fingerprints, earlier, before));
            }
        }
        let to_move = place.map(|place| ToMove { id: message.id.clone(), row: None, place });
        Ok(Judgement::Settled(Fate::AlreadyDone, Reason::DUPLICATE, Box::new(row), to_move))
    }

    pub(super) async fn copy_is_gone(&self, row: &Row) -> Result<bool> {
        match self.account.fetch_message(&row.handle).await {
            Ok(copy) => Ok(Some(&copy.folder) != self.folder_of(row.place)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    pub(super) fn hand_over(
        &self,
        message: &Message,
        mut row: Row,
        fingerprints: Fingerprints,
        earlier: Option<Earlier>,
        before: (u32, Option<Timestamp>),
    ) -> Judgement {
        row.place =
            if self.failed.as_ref().is_some_and(|f| f.id == message.folder) { Place::Failed } else { Place::Import };
        row.step = Step::Claimed;
        row.outcome = None;
        row.retry = false;
        row.next_attempt = None;
        row.account.clone_from(&self.me);
        row.handle = message.id.clone();
        row.run = self.token();
        Judgement::HandOver { row: Box::new(row), fingerprints, earlier, before, is_new: false }
    }

    /// The digest of a message's files; reads those that are not in memory.
    pub(super) async fn read_digest(&self, message: &Message, fingerprints: &Fingerprints) -> Result<Digest> {
        for index in fingerprints.missing(&message.attachments) {
            let attachment = &message.attachments[index];
            let content = self
                .account
                .download_attachment(&message.id, &attachment.id)
                .with_tap(fingerprints.tap(index, attachment));
            let read = content.into_stream().try_for_each(|_| async { Ok(()) }).await;
            match read {
                Err(error) if error.kind().is_account_wide() => return Err(error),
                // What cannot be read cannot be compared.
                Err(_) => return Ok(Digest::Unknown),
                Ok(()) => {}
            }
        }
        Ok(fingerprints.digest(&message.attachments))
    }
}
