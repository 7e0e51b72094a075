//! The end: what was seen and had no turn is counted as left.

use super::*;

impl Run<'_> {
    /// Counts what is left over, after an orderly end.
    pub(super) fn finish(&mut self) {
        self.report.counts.unmoved += self.to_move.drain(..).filter(|item| item.row.is_some()).count() as u64;
        let reason = match &self.ending {
            None => return,
            Some(Ending::Limit) => Reason::LIMIT,
            Some(Ending::Stopped(_)) => Reason::STOPPED,
            Some(Ending::Failed(_)) => Reason::ACCOUNT_ERROR,
        };
        self.leave_queued(&reason);
    }

    /// Counts what is left over, after the ledger or the account failed in the middle. Handlers end in peace, but what
    /// they say can no longer be recorded: their messages will be handed over again.
    pub(super) async fn abandon(&mut self) {
        while self.tasks.join_next().await.is_some() {}
        while let Some(task) = self.moving.join_next().await {
            self.moved.extend(task);
        }
        let results = std::mem::take(&mut self.moved).into_iter().flatten();
        let unproven = results.filter(|(item, result)| {
            item.row.is_some() && !matches!(result, Ok(MoveOutcome::Moved(_) | MoveOutcome::CopiedNotRemoved(_)))
        });
        self.report.counts.unmoved += unproven.count() as u64;
        self.report.counts.unmoved += self.to_move.drain(..).filter(|item| item.row.is_some()).count() as u64;
        for (row, effect) in std::mem::take(&mut self.batch) {
            match effect {
                Effect::Start(ready) => self.leave(&ready.message, Reason::ACCOUNT_ERROR),
                Effect::Tell(mut record, _) => {
                    if row.is_some() {
                        record.fate = Fate::Left;
                        record.reason = Some(Reason::ACCOUNT_ERROR);
                    }
                    self.tell(*record);
                }
                Effect::Nothing => {}
            }
        }
        let hands: Vec<_> = self.in_hand.drain().map(|(_, hand)| hand).collect();
        let suspects: Vec<_> = std::mem::take(&mut self.suspects).into_iter().map(|(_, hand)| hand).collect();
        for hand in hands.into_iter().chain(suspects) {
            let record = self.record(&hand.row, Fate::Left, Some(Reason::ACCOUNT_ERROR));
            self.tell(MessageRecord { delivery: Some(hand.delivery), ..record });
        }
        self.leave_queued(&Reason::ACCOUNT_ERROR);
    }

    /// After the limit is reached: counts what stands next in the folder, without reading it all.
    pub(super) async fn look_ahead(&mut self) {
        let mut bytes = 0;
        for _ in 0..LOOK_AHEAD {
            let listed = match self.incoming.pop_front() {
                Some(listed) => Some(listed),
                None => match &mut self.listing {
                    Some(listing) => listing.messages.recv().await,
                    None => None,
                },
            };
            let Some(Ok((message, _))) = listed else { break };
            bytes += message.inline_bytes();
            self.report.counts.seen += 1;
            self.leave(&message, Reason::LIMIT);
            if bytes > self.job().prefetch_bytes {
                break;
            }
        }
        self.listing = None;
        self.incoming.clear();
    }

    /// Counts what was seen and has had no turn.
    pub(super) fn leave_queued(&mut self, reason: &Reason) {
        let held: Vec<_> = self
            .held
            .drain(..)
            .map(|(_, candidate)| candidate)
            .chain(self.later.drain(..))
            .chain(self.last.drain(..))
            .collect();
        for candidate in held {
            self.leave(&candidate.message, reason.clone());
        }
        let mut listed: Vec<_> = self.incoming.drain(..).collect();
        if let Some(mut listing) = self.listing.take() {
            while let Ok(item) = listing.messages.try_recv() {
                listed.push(item);
            }
        }
        for (message, _) in listed.into_iter().flatten() {
            self.report.counts.seen += 1;
            self.leave(&message, reason.clone());
        }
    }

    pub(super) fn leave(&mut self, message: &Message, reason: Reason) {
        let record = MessageRecord {
            account: self.me.clone(),
            key: message.internet_message_id.as_deref().and_then(MessageKey::of_message_id),
            id: message.id.clone(),
            internet_message_id: message.internet_message_id.clone(),
            subject: message.subject.clone(),
            from: message.from.clone(),
            received: message.received,
            fate: Fate::Left,
            reason: Some(reason),
            will_retry: false,
            delivery: None,
        };
        self.tell(record);
    }
}

/// A message that has to wait gives its share of the prefetch budget back; its content is fetched again.
pub(super) fn without_content(mut candidate: Candidate) -> Candidate {
    candidate.permit = None;
    for attachment in &mut candidate.message.attachments {
        attachment.content = None;
    }
    candidate
}
