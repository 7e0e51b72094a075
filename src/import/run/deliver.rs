//! One hand-over: from the claim to the handler.

use super::*;

impl Run<'_> {
    pub(super) fn start(&mut self, ready: Ready) {
        let Ready { row, message, permit, fingerprints, earlier, before } = ready;
        let delivery = self.delivery(&row, &message, &fingerprints, earlier.clone());
        let mut message = message;
        for attachment in &mut message.attachments {
            attachment.content = None;
        }
        message.text = None;
        message.html = None;
        self.serial += 1;
        let serial = self.serial;
        let hand =
            InHand { row, message, fingerprints, earlier, before, delivery: delivery.id.clone(), _permit: permit };
        self.in_hand.insert(serial, hand);
        let handler = self.shared.handler.clone().expect("checked before the run");
        self.tasks.spawn(async move {
            let ended = match AssertUnwindSafe(handler.handle(delivery)).catch_unwind().await {
                Ok(Ok(outcome)) => Ended::Outcome(outcome),
                Ok(Err(error)) => Ended::Err(error),
                Err(panic) => Ended::Panic(panic_text(&*panic)),
            };
            (serial, ended)
        });
    }

    pub(super) fn delivery(
        &self,
        row: &Row,
        message: &Message,
        fingerprints: &Fingerprints,
        earlier: Option<Earlier>,
    ) -> Delivery {
        let folder: Arc<std::path::Path> = message_folder(&self.me, message, &row.key, row.discriminator).into();
        let swept = Arc::new(OnceCell::new());
        let attachments = message
            .attachments
            .iter()
            .zip(file_names(&message.attachments))
            .enumerate()
            .map(|(index, (attachment, file_name))| {
                let open = match &attachment.content {
                    Some(bytes) => {
                        let bytes = bytes.clone();
                        Opener(Arc::new(move || Content::from_bytes(bytes.clone())))
                    }
                    None => {
                        let account = Arc::clone(&self.account);
                        let (id, fingerprints, attachment) =
                            (message.id.clone(), fingerprints.clone(), attachment.clone());
                        Opener(Arc::new(move || {
                            let content = account.download_attachment(&id, &attachment.id);
                            if attachment.kind == AttachmentKind::Link {
                                return content;
                            }
                            content.with_tap(fingerprints.tap(index, &attachment))
                        }))
                    }
                };
                Delivered {
                    attachment: attachment.clone(),
                    file_name,
                    folder: Arc::clone(&folder),
                    open,
                    swept: Arc::clone(&swept),
                }
            })
            .collect();
        let (account, id, passed) = (Arc::clone(&self.account), message.id.clone(), fingerprints.clone());
        Delivery {
            id: delivery_id(&self.scope, row),
            job: self.scope.job.clone(),
            account: self.me.clone(),
            mailbox: self.scope.mailbox.clone(),
            key: row.key.clone(),
            discriminator: row.discriminator,
            attempt: row.attempts + 1,
            earlier,
            possible_duplicate_of: row.possible_duplicate_of.as_ref().map(|(key, _)| key.clone()),
            message: message.clone(),
            attachments,
            raw: Opener(Arc::new(move || {
                account.download_attachment(&id, &AttachmentId::raw()).with_tap(passed.failure_tap())
            })),
        }
    }
}

/// The same for every hand-over of one delivery.
pub(super) fn delivery_id(scope: &Scope, row: &Row) -> String {
    let mut hash = Sha256::new();
    for part in [&scope.job, &scope.mailbox, row.key.as_str()] {
        hash.update(part);
        hash.update([0]);
    }
    hash.update(row.discriminator.to_le_bytes());
    hash.update(row.deliveries.to_le_bytes());
    hash.finalize()[..16].iter().map(|b| format!("{b:02x}")).collect()
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    shorten(&text.unwrap_or_else(|| "a panic without a text".to_owned()))
}
