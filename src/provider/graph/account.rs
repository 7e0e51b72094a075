//! The public account type: a trait impl that only forwards.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt as _};

use super::{
    GraphConfig, GraphDirectory, NAME, batch,
    client::Client,
    content, directory,
    folders::{self, Folders},
    messages::{self, Departures},
    moves,
};
use crate::{
    Access, AttachmentId, Capabilities, Content, Error, Folder, FolderId, FolderSpec, MailAccount, MailboxInfo,
    Message, MessageId, MoveOutcome, Query, Result, Usage,
    auth::{Claims, Registration, TokenProvider},
    net::{
        Route,
        limit::{LimitKey, Limiter},
    },
    provider::{
        Opening, ProviderConfig as _,
        insight::{Absence, Facts, Insight},
    },
};

/// One mailbox in Exchange Online, over Microsoft Graph. Cloning it shares everything.
///
/// Requests are kept to what Exchange allows one app on one mailbox, four at a time and 10,000 in ten minutes, counted
/// for all accounts of the process that meet on the mailbox.
#[derive(Clone)]
pub struct GraphAccount {
    inner: Arc<Inner>,
}

/// What an account's parts share.
pub(super) struct Inner {
    pub(super) info: MailboxInfo,
    pub(super) client: Arc<Client>,
    pub(super) folders: Folders,
    pub(super) departures: Departures,
    facts: Facts,
}

impl GraphAccount {
    /// Opens an account that signs in as its configuration says. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn open(config: &GraphConfig, opening: Opening) -> Result<Self> {
        let settings = config.settings(&opening.places)?;
        let tokens = opening.tokens_for(&settings)?;
        Self::open_with(config, opening, tokens)
    }

    /// Opens an account that gets its access tokens from `tokens`. Does no I/O.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the key and the remedy.
    pub fn open_with(config: &GraphConfig, opening: Opening, tokens: Arc<dyn TokenProvider>) -> Result<Self> {
        let info = config.mailbox(&opening);
        let client = client(&config.app, &opening, config.mailbox.trim(), &info.name, tokens)?;
        let facts = Facts {
            server: client.host(),
            tenant: config.app.tenant.as_deref().map(|tenant| tenant.trim().to_owned()),
            client_id: config.app.client_id.as_deref().map(|id| id.trim().to_owned()),
            auth: Some(config.auth),
            shared: config.principal.as_deref().is_some_and(|p| !p.trim().eq_ignore_ascii_case(config.mailbox.trim())),
            is_microsofts: true,
        };
        let inner = Inner { info, client, folders: Folders::default(), departures: Departures::default(), facts };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory of the mailbox's tenant, asked with the account's own sign-in.
    #[must_use]
    pub fn directory(&self) -> GraphDirectory {
        GraphDirectory::new(Arc::clone(&self.inner.client), self.inner.info.account.clone())
    }

    fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error + Clone + Send + Sync + 'static {
        let account = self.inner.info.account.clone();
        move |error| error.with_provider(NAME).with_account(&account).with_operation(operation)
    }
}

/// A client of the registration's Graph; `name` is whose limit its requests count for.
pub(super) fn client(
    app: &Registration,
    opening: &Opening,
    mailbox: &str,
    name: &str,
    tokens: Arc<dyn TokenProvider>,
) -> Result<Arc<Client>> {
    let authority = app.authority(&opening.places)?;
    let limiter = Limiter::of(LimitKey {
        service: authority.graph.to_string(),
        app: app.client_id.as_deref().unwrap_or_default().trim().to_lowercase(),
        mailbox: name.to_owned(),
    });
    let context = opening.context.clone();
    let http = context.shared().http(&Route::of(app, &opening.places));
    Ok(Arc::new(Client::new(authority.graph, mailbox.to_owned(), http, tokens, limiter, context)))
}

impl fmt::Debug for GraphAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphAccount").field("info", &self.inner.info).finish_non_exhaustive()
    }
}

#[async_trait]
impl MailAccount for GraphAccount {
    async fn list_folders(&self) -> Result<Vec<Folder>> {
        folders::tree(&self.inner.client).await.map_err(self.named("list_folders"))
    }

    fn fetch_messages(&self, folder: &FolderId, query: Query) -> BoxStream<'static, Result<Message>> {
        let named = self.named("fetch_messages");
        messages::list(Arc::clone(&self.inner), folder.clone(), query).map(move |m| m.map_err(&named)).boxed()
    }

    fn download_attachment(&self, message: &MessageId, attachment: &AttachmentId) -> Content {
        content::download(Arc::clone(&self.inner.client), message, attachment, self.named("download_attachment"))
    }

    async fn move_to_processed(&self, messages: &[MessageId], to: &FolderId) -> Vec<Result<MoveOutcome>> {
        let Inner { client, folders, departures, .. } = &*self.inner;
        let moved = |id: &MessageId| departures.note(id);
        let answers = moves::move_all(client, folders, messages, to, &moved).await;
        let named = self.named("move_to_processed");
        answers.into_iter().map(|answer| answer.map_err(&named)).collect()
    }

    fn mailbox(&self) -> &MailboxInfo {
        &self.inner.info
    }

    async fn resolve_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        self.inner.folders.resolve(&self.inner.client, spec).await.map_err(self.named("resolve_folder"))
    }

    async fn create_folder(&self, spec: &FolderSpec) -> Result<Folder> {
        self.inner.folders.create(&self.inner.client, spec).await.map_err(self.named("create_folder"))
    }

    async fn folder_access(&self, folder: &FolderId) -> Result<Access> {
        self.inner.folders.access(&self.inner.client, folder).await.map_err(self.named("folder_access"))
    }

    async fn fetch_message(&self, message: &MessageId) -> Result<Message> {
        messages::fetch(Arc::clone(&self.inner), message).await.map_err(self.named("fetch_message"))
    }

    async fn mark_read(&self, messages: &[MessageId], read: bool) -> Vec<Result<()>> {
        let answers = moves::mark_all(&self.inner.client, messages, read).await;
        let named = self.named("mark_read");
        answers.into_iter().map(|answer| answer.map_err(&named)).collect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(batch::MOST, true)
    }

    fn usage(&self) -> Usage {
        self.inner.client.usage()
    }
}

#[async_trait]
impl Insight for GraphAccount {
    fn facts(&self) -> Facts {
        self.inner.facts.clone()
    }

    async fn claims(&self) -> Result<Option<Claims>> {
        self.inner.client.claims().await.map_err(self.named("sign_in"))
    }

    async fn access(&self, folder: &FolderId, _: bool) -> Result<Access> {
        self.folder_access(folder).await
    }

    async fn absence(&self) -> Option<Absence> {
        directory::absence(&self.inner.client).await
    }
}
