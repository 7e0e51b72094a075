//! Moving what is settled, a batch at a time.

use super::*;

impl Run<'_> {
    pub(super) fn queue_move(&mut self, item: ToMove) {
        self.oldest_move.get_or_insert_with(Instant::now);
        self.to_move.push_back(item);
    }

    /// Lets one batch of moves begin, when there are enough, or they have waited, or nothing else is going on.
    pub(super) async fn start_moves(&mut self) -> Result<()> {
        if !self.moving.is_empty() || matches!(self.ending, Some(Ending::Failed(_))) {
            return Ok(());
        }
        let Some(first) = self.to_move.front() else { return Ok(()) };
        let place = first.place;
        let size = self.account.capabilities().move_batch.max(1);
        let waited = self.oldest_move.is_some_and(|since| since.elapsed() >= MOVE_DELAY);
        let same_place = self.to_move.iter().filter(|item| item.place == place).count();
        let quiet = self.in_hand.is_empty() && (self.ending.is_some() || self.is_drained());
        if same_place < size && !waited && !quiet {
            return Ok(());
        }
        let held = self.lease.as_ref().expect("nothing is moved without the lease");
        self.shared.ledger.check(held.lease()).await?;
        let mut items = Vec::new();
        let mut rest = VecDeque::new();
        for item in std::mem::take(&mut self.to_move) {
            if item.place == place && items.len() < size { items.push(item) } else { rest.push_back(item) }
        }
        self.to_move = rest;
        self.oldest_move = (!self.to_move.is_empty()).then(Instant::now);
        let folder = self.folder_of(place).cloned().expect("only folders of the job are wanted");
        let account = Arc::clone(&self.account);
        self.moving.spawn(async move {
            let ids: Vec<_> = items.iter().map(|item| item.id.clone()).collect();
            let mut results = account.move_to_processed(&ids, &folder).await;
            // A provider that breaks its contract must not make us lose count.
            results.resize_with(items.len(), || {
                Err(Error::new(ErrorKind::Malformed, "the provider did not say what became of a move"))
            });
            items.into_iter().zip(results).collect()
        });
        Ok(())
    }

    /// A batch of moves has ended.
    pub(super) async fn take_in_moved(&mut self, moved: Moved) -> Result<()> {
        let mut count = 0;
        for (item, result) in moved {
            let place = item.place;
            match result {
                Ok(MoveOutcome::Moved(id)) => {
                    count += 1;
                    self.moved(item.row, id, place);
                }
                Ok(MoveOutcome::CopiedNotRemoved(id)) => {
                    count += 1;
                    self.warn(format!(
                        "message `{}` was copied and marked as deleted, but this server cannot remove single messages",
                        item.id
                    ));
                    self.moved(item.row, id, place);
                }
                Ok(MoveOutcome::Gone) => {
                    let Some(row) = item.row else { continue };
                    // Perhaps it was moved before, by a run that died before it could say so.
                    let folder = self.folder_of(place).cloned();
                    let found = match folder {
                        Some(folder) => self.locate(&row, &[folder]).await?,
                        None => None,
                    };
                    match found {
                        Some(message) => self.moved(Some(row), message.id, place),
                        None => {
                            self.report.counts.unmoved += 1;
                            self.done(*row);
                        }
                    }
                }
                Err(error) => {
                    self.report.counts.unmoved += 1;
                    if error.kind().is_account_wide() {
                        self.ending.get_or_insert(Ending::Failed(error));
                    } else {
                        self.warn(format!("message `{}` could not be moved: {}", item.id, error.chain()));
                    }
                }
            }
        }
        if count > 0 {
            self.emit(Event::Moved { account: self.me.clone(), messages: count });
        }
        Ok(())
    }

    pub(super) fn moved(&mut self, row: Option<Box<Row>>, id: MessageId, place: Place) {
        let Some(mut row) = row else { return };
        row.handle = id;
        row.place = place;
        row.account.clone_from(&self.me);
        self.done(*row);
    }

    pub(super) fn done(&mut self, mut row: Row) {
        row.step = Step::Done;
        row.run = self.token();
        self.batch.push((Some(row), Effect::Nothing));
    }

    /// In which folder messages with this outcome belong, if not where they are.
    pub(super) fn wanted_in(&self, outcome: Option<Recorded>) -> Option<Place> {
        match outcome? {
            Recorded::Imported | Recorded::Skipped => self.processed.as_ref().map(|_| Place::Processed),
            Recorded::Failed => self.failed.as_ref().map(|_| Place::Failed),
            Recorded::Gone => None,
        }
    }

    pub(super) fn folder_of(&self, place: Place) -> Option<&FolderId> {
        match place {
            Place::Import => Some(&self.import),
            Place::Processed => self.processed.as_ref().map(|f| &f.id),
            Place::Failed => self.failed.as_ref().map(|f| &f.id),
        }
    }
}
