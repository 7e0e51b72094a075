//! Before anything is handed over: folders, what the ledger remembers, the lease, the listing.

use super::*;

impl Run<'_> {
    pub(super) async fn resolve_folders(&mut self) -> Result<()> {
        let job = Arc::clone(&self.shared.job);
        let import = self.account.resolve_folder(&job.import_folder).await?;
        let bad = |key: &str, spec: &FolderSpec, what: &str| {
            Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the folder `{spec}` (`{key}` of job `{}`) {what}; name another folder", job.name),
            ))
        };
        if !import.selectable {
            return bad("import_folder", &job.import_folder, "holds no messages");
        }
        let mut moves = false;
        for (key, spec) in [("processed_folder", &job.processed_folder), ("failed_folder", &job.failed_folder)] {
            let Some(spec) = spec else { continue };
            let folder = match self.account.resolve_folder(spec).await {
                Err(error) if error.kind() == ErrorKind::NotFound && job.creates(spec) => {
                    self.account.create_folder(spec).await?
                }
                other => other?,
            };
            if folder.id == import.id {
                return bad(key, spec, "is the import folder itself");
            }
            if folder.search || !folder.selectable {
                return bad(key, spec, "holds no messages of its own");
            }
            self.refuse_read_only(&folder.id, key, spec).await?;
            moves = true;
            match key {
                "processed_folder" => self.processed = Some(folder),
                _ => self.failed = Some(folder),
            }
        }
        if moves {
            self.refuse_read_only(&import.id, "import_folder", &job.import_folder).await?;
        }
        self.import = import.id;
        Ok(())
    }

    pub(super) async fn refuse_read_only(&self, folder: &FolderId, key: &str, spec: &FolderSpec) -> Result<()> {
        if self.account.folder_access(folder).await? != Access::ReadOnly {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "the folder `{spec}` (`{key}` of job `{}`) is read-only for this account, but mail is to be moved; grant write access to it",
                self.job().name
            ),
        ))
    }

    /// Reads what the ledger knows; `false` when there is something to do but another run is at it.
    pub(super) async fn recall(&mut self) -> Result<bool> {
        let since = self.listed_since().await?;
        let (me, now) = (self.me.clone(), self.now());
        let mut handles = HashSet::new();
        self.remember(|row| {
            let here = row.account == me && row.place == Place::Import;
            if here && (is_idle(&row, now) || row.step == Step::Handled) {
                handles.insert(row.handle);
            }
        })
        .await?;
        let remaining = Find::Remaining { account: &self.me, since };
        let mut take = |row: Row| {
            if !row.retry && self.wanted_in(row.outcome).is_none() {
                handles.insert(row.handle);
            }
        };
        self.shared.ledger.find_each(&self.scope, remaining, &mut take).await?;
        self.known.handles = Arc::new(handles);
        let work = !self.pending.is_empty() || !self.retries.is_empty();
        if work && self.shared.mode != Mode::Fetch { self.hold().await } else { Ok(true) }
    }

    /// Reads what is pending, and keeps the names of what is to be seen to. What else is to be known of the rows, `look`
    /// takes from them as they pass.
    async fn remember(&mut self, mut look: impl FnMut(Row) + Send) -> Result<()> {
        self.retries.clear();
        self.pending = HashMap::new();
        let now = self.now();
        let mut take = |row: Row| {
            if row.retry && row.place == Place::Failed {
                self.retries.push_back(name(&row));
            } else if !is_idle(&row, now) {
                self.pending.insert(name(&row), row.received);
            }
            look(row);
        };
        self.shared.ledger.find_each(&self.scope, Find::Pending, &mut take).await
    }

    /// Takes the lease, if this run does not have it yet; `false` when another run does.
    pub(super) async fn hold(&mut self) -> Result<bool> {
        if self.lease.is_some() {
            return Ok(true);
        }
        let Some(held) = Held::acquire(&self.shared.ledger, &self.scope, &self.shared.context).await? else {
            self.report.status = Status::Busy;
            self.leave_queued(&Reason::BUSY);
            return Ok(false);
        };
        // What was read before the lease may be out of date.
        let run = held.lease().token;
        let mut dead = Vec::new();
        self.remember(|row| {
            if row.step == Step::Claimed {
                dead.push(Row { deaths: row.deaths + 1, run, ..row });
            }
        })
        .await?;
        if !dead.is_empty() {
            self.shared.ledger.commit(held.lease(), dead).await?;
        }
        self.lease = Some(held);
        Ok(true)
    }

    /// From when on the import folder is listed.
    pub(super) async fn listed_since(&self) -> Result<Option<Timestamp>> {
        let since = match self.job().since {
            Since::All => None,
            Since::Date(date) => Some(date),
            Since::Now => Some(self.shared.ledger.baseline(&self.scope, self.now()).await?),
        };
        if self.job().processed_folder.is_some() {
            return Ok(since);
        }
        // Messages stay where they are: what is older than the watermark, less a day for clocks and late deliveries,
        // is settled.
        let watermark = self.shared.ledger.watermark(&self.scope).await?;
        let floor = watermark.and_then(|at| Timestamp::from_second(at.as_second() - DAY).ok());
        Ok(since.max(floor))
    }

    pub(super) async fn open_listing(&mut self) -> Result<()> {
        if self.shared.mode == Mode::Process {
            return Ok(());
        }
        let known = self.known.clone();
        let mut query = Query::default()
            .with_unread_only(self.job().unread_only)
            .with_since(self.listed_since().await?)
            .with_headers(self.job().headers.clone())
            .with_text(self.job().text)
            .with_skip(move |id| known.skips(id));
        if self.shared.mode == Mode::Fetch {
            query = query.with_inline_up_to(0);
        }
        let mut stream = self.account.fetch_messages(&self.import, query);
        let (sender, messages) = mpsc::channel(PREFETCH_MESSAGES);
        let budget = Arc::clone(&self.shared.budget);
        let all = self.shared.budget_kib;
        let task = tokio::spawn(async move {
            while let Some(item) = stream.next().await {
                let item = match item {
                    Ok(message) => {
                        let kib = u32::try_from(message.inline_bytes() / 1024 + 1).unwrap_or(all).min(all);
                        let Ok(permit) = Arc::clone(&budget).acquire_many_owned(kib).await else { break };
                        Ok((message, Some(permit)))
                    }
                    Err(error) => Err(error),
                };
                let failed = item.is_err();
                if sender.send(item).await.is_err() || failed {
                    break;
                }
            }
        });
        self.listing = Some(Listing { messages, _task: AbortOnDropHandle::new(task) });
        Ok(())
    }
}
