//! Which mailboxes the Graph account may read, and what it says when it may not: every row of what a bad mailbox answers,
//! every refusal of the sign-in, the directory, and the way from an address to an account.

#![cfg(all(feature = "testing", feature = "graph"))]

#[path = "support/tenant.rs"]
mod tenant;

use futures::TryStreamExt as _;
use mail_account::{
    AttachmentId, Error, ErrorKind, FolderId, MailAccount as _, MailApp, MessageId, MoveOutcome, Query, Result,
    provider::{
        Opening,
        graph::{DirectoryMailbox, GraphDirectory},
    },
    testing::graph::{Fault, MailboxState, Route},
};
use tenant::{INBOX, SECRET, Tenant, impatient, inbox, list, mime};

/// The public error of an account: all that a host has to show and to go by.
fn check(error: &Error, kind: ErrorKind, code: &str, says: &[&str], what: &str) {
    let chain = error.chain().to_string();
    assert_eq!(error.kind(), kind, "{what}: {chain}");
    assert_eq!(error.code(), Some(code), "{what}: {chain}");
    assert_eq!(error.is_retryable(), matches!(kind, ErrorKind::Unavailable | ErrorKind::Throttled), "{what}: {chain}");
    assert!(!error.request_ids().is_empty(), "{what}: {chain}");
    assert_eq!((error.provider(), error.account()), (Some("graph"), Some("invoices-graph")), "{what}: {chain}");
    for says in says {
        assert!(chain.contains(says), "{what}: {chain:?} does not say {says:?}");
    }
    let all = format!("{error:?} {error:#?} {chain}");
    assert!(!all.contains("canary") && !all.contains("eyJ") && !all.contains("Bearer "), "{what}: {all}");
}

/// What is asked of an account in a row of the table.
#[derive(Clone, Copy, Debug)]
enum Call {
    Inbox,
    List,
    Message,
    Attachment,
    Raw,
    Move,
    Directory,
}

impl Call {
    const ROUTES: [Route; 8] = [
        Route::GetFolder,
        Route::ListFolders,
        Route::ListMessages,
        Route::GetMessage,
        Route::MessageValue,
        Route::AttachmentValue,
        Route::Move,
        Route::ListUsers,
    ];

    async fn make(self, tenant: &Tenant) -> Result<()> {
        let account = tenant.open();
        let (message, attachment) = (MessageId::new("AAkALg=="), AttachmentId::new("AAkALg=="));
        match self {
            Self::Inbox => account.resolve_folder(&INBOX).await.map(drop),
            Self::List => account.fetch_messages(&FolderId::new("f"), Query::default()).try_next().await.map(drop),
            Self::Message => account.fetch_message(&message).await.map(drop),
            Self::Attachment => account.download_attachment(&message, &attachment).bytes(10).await.map(drop),
            Self::Raw => account.download_attachment(&message, &AttachmentId::raw()).bytes(10).await.map(drop),
            Self::Move => account.move_to_processed(&[message], &FolderId::new("f")).await.remove(0).map(drop),
            Self::Directory => account.directory().find("info@contoso.nl").await.map(drop),
        }
    }
}

/// "What a bad mailbox answers": status, code and words as the service has them.
#[tokio::test]
async fn what_a_bad_mailbox_answers_is_told_with_its_cause() {
    use Call::{Attachment, Directory, Inbox, List, Message, Move, Raw};
    use ErrorKind::{MailboxGone, NotFound, PermissionDenied, Unauthenticated};
    const NAME: &str = "facturen@contoso.nl";
    const RAOP: &str =
        "Access to OData is disabled: [RAOP] : Blocked by tenant configured AppOnly AccessPolicy settings.";
    const DENIED: &str = "Access is denied. Check credentials and try again.";
    const LOST: &str = "The specified object was not found in the store.";
    type Row = (u16, &'static str, &'static str, &'static [Call], ErrorKind, &'static [&'static str]);
    let rows: &[Row] = &[
        (
            404,
            "ErrorInvalidUser",
            "The requested user is invalid.",
            &[Inbox, List, Message],
            MailboxGone,
            &[NAME, "has no user"],
        ),
        (
            404,
            "Request_ResourceNotFound",
            "Resource does not exist.",
            &[Inbox, Raw],
            MailboxGone,
            &[NAME, "has no user"],
        ),
        (
            404,
            "MailboxNotEnabledForRESTAPI",
            "The mailbox is either inactive, soft-deleted, or is hosted on-premise.",
            &[Inbox, List, Message, Attachment, Move],
            MailboxGone,
            &[NAME, "licence", "own server", "15 minutes"],
        ),
        (
            404,
            "MailboxNotSupportedForRESTAPI",
            "REST API is not yet supported for this mailbox.",
            &[Inbox, List],
            MailboxGone,
            &[NAME, "licence"],
        ),
        (404, "ResourceNotFound", "Resource could not be discovered.", &[Inbox, List], MailboxGone, &[NAME, "licence"]),
        (404, "extensionError", "The mailbox is on-premises.", &[Inbox, List], MailboxGone, &[NAME, "own server"]),
        (
            404,
            "ErrorNonExistentMailbox",
            "The SMTP address has no mailbox associated with it.",
            &[Inbox, List],
            MailboxGone,
            &[NAME, "has no mailbox"],
        ),
        (
            403,
            "ErrorAccessDenied",
            "Access to OData is disabled.",
            &[Inbox, List, Message],
            PermissionDenied,
            &[NAME, "access policy", "Exchange administrator"],
        ),
        (403, "ErrorAccessDenied", RAOP, &[Inbox, List, Attachment, Move], PermissionDenied, &[NAME, "access policy"]),
        (403, "extensionError", RAOP, &[Inbox, List], PermissionDenied, &[NAME, "access policy"]),
        (
            403,
            "ErrorAccessDenied",
            DENIED,
            &[Inbox, List, Message, Raw, Move],
            PermissionDenied,
            &[NAME, "`Mail.ReadWrite` of type Application", "RBAC"],
        ),
        (404, "ErrorItemNotFound", "Default folder Root not found.", &[Inbox], PermissionDenied, &[NAME, "not shown"]),
        (
            404,
            "ErrorFolderNotFound",
            "The specified folder could not be found in the store.",
            &[Inbox],
            PermissionDenied,
            &[NAME, "not shown"],
        ),
        (
            403,
            "Authorization_RequestDenied",
            "Insufficient privileges to complete the operation.",
            &[Directory],
            PermissionDenied,
            &["User.Read.All", "admin consent"],
        ),
        (404, "ErrorItemNotFound", LOST, &[Attachment, Raw], NotFound, &[NAME, "no such"]),
        (
            404,
            "ErrorFolderNotFound",
            "The specified folder could not be found.",
            &[List],
            NotFound,
            &[NAME, "no such folder"],
        ),
        (
            400,
            "ErrorInvalidIdMalformed",
            "Id is malformed.",
            &[List, Attachment, Raw],
            NotFound,
            &[NAME, "not one of this mailbox"],
        ),
        (
            400,
            "RequestBroker--ParseUri",
            "Resource not found for the segment 'x'.",
            &[List, Attachment],
            NotFound,
            &[NAME, "not one of this mailbox"],
        ),
        (
            401,
            "InvalidAuthenticationToken",
            "CompactToken parsing failed with error code: 80049217",
            &[Inbox, List],
            Unauthenticated,
            &["access token"],
        ),
        (403, "InvalidAuthenticationToken", "Invalid audience.", &[Inbox, List], Unauthenticated, &["access token"]),
    ];
    for (status, code, message, calls, kind, says) in rows {
        for call in *calls {
            let mut tenant = Tenant::start().await;
            tenant.context = impatient();
            // Some messages quote the token.
            let refusal = Fault::error(*status, code, &format!("{message} eyJhbGciOi.x.y"));
            for route in Call::ROUTES {
                tenant.fake.fault(refusal.clone().on(route));
            }
            let error = call.make(&tenant).await.unwrap_err();
            check(&error, *kind, code, says, &format!("{code} {call:?}"));
            assert!(tenant.fake.counters().graph_requests <= 3, "{code} {call:?}: what is final is not tried again");
        }
    }
}

/// A refusal of one message is that message's alone: it is gone, and nobody's fault.
#[tokio::test]
async fn a_message_that_is_gone_is_no_error_of_a_move() {
    for (status, code) in
        [(404, "ErrorItemNotFound"), (400, "ErrorInvalidIdMalformed"), (404, "ErrorInvalidMailboxItemId")]
    {
        let tenant = Tenant::start().await;
        let id = MessageId::new(tenant.mailbox.deliver("inbox", mime("m", &[])));
        let account = tenant.open();
        let target = account.create_folder(&"Inbox/Processed".parse().unwrap()).await.unwrap();
        for route in [Route::Move, Route::GetMessage] {
            tenant.fake.fault(Fault::error(status, code, "x").on(route));
        }
        let moved = account.move_to_processed(std::slice::from_ref(&id), &target.id).await.remove(0);
        assert_eq!(moved.unwrap(), MoveOutcome::Gone, "{code}");
        assert_eq!(account.fetch_message(&id).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

/// Every code of Microsoft's list that concerns an app, with the OAuth error and the status it comes with.
#[tokio::test]
async fn every_refusal_of_the_sign_in_is_told_with_its_cause() {
    use ErrorKind::{InvalidConfig, PermissionDenied, SignInNeeded, Throttled, Unauthenticated, Unavailable};
    let rows: &[(u32, &str, ErrorKind, &str)] = &[
        (7000215, "invalid_client", Unauthenticated, "not its ID"),
        (7000222, "invalid_client", Unauthenticated, "expired"),
        (7000218, "invalid_request", InvalidConfig, "client_secret"),
        (700025, "invalid_client", Unauthenticated, "public client"),
        (7000112, "unauthorized_client", PermissionDenied, "disabled"),
        (700016, "unauthorized_client", InvalidConfig, "client_id"),
        (700027, "invalid_client", Unauthenticated, "certificate"),
        (50012, "invalid_client", Unauthenticated, "certificate"),
        (90002, "invalid_request", InvalidConfig, "no such tenant"),
        (90038, "invalid_request", InvalidConfig, "`cloud`"),
        (50194, "invalid_request", InvalidConfig, "`common`"),
        (9001023, "invalid_request", InvalidConfig, "`common`"),
        (90130, "invalid_request", InvalidConfig, "`common`"),
        (90124, "invalid_request", InvalidConfig, "`common`"),
        (50011, "invalid_request", InvalidConfig, "redirect URI"),
        (900971, "invalid_request", InvalidConfig, "redirect URI"),
        (501481, "invalid_grant", SignInNeeded, "again"),
        (54005, "invalid_grant", SignInNeeded, "used already"),
        (70008, "invalid_grant", SignInNeeded, "Sign in again"),
        (700082, "invalid_grant", SignInNeeded, "Sign in again"),
        (700084, "invalid_grant", SignInNeeded, "24 hours"),
        (70043, "invalid_grant", SignInNeeded, "frequency"),
        (70000, "invalid_grant", SignInNeeded, "Sign in again"),
        (50173, "invalid_grant", SignInNeeded, "revoked"),
        (50132, "invalid_grant", SignInNeeded, "password"),
        (50133, "invalid_grant", SignInNeeded, "password"),
        (50089, "invalid_grant", SignInNeeded, "Sign in again"),
        (50076, "interaction_required", SignInNeeded, "proof of identity"),
        (50079, "interaction_required", SignInNeeded, "proof of identity"),
        (50072, "interaction_required", SignInNeeded, "proof of identity"),
        (50074, "interaction_required", SignInNeeded, "proof of identity"),
        (50158, "interaction_required", SignInNeeded, "proof of identity"),
        (53003, "invalid_grant", PermissionDenied, "Conditional Access"),
        (53000, "interaction_required", PermissionDenied, "managed device"),
        (53001, "interaction_required", PermissionDenied, "managed device"),
        (530032, "invalid_grant", PermissionDenied, "security policy"),
        (530035, "invalid_grant", PermissionDenied, "security policy"),
        (50105, "invalid_grant", PermissionDenied, "not assigned"),
        (65001, "invalid_grant", PermissionDenied, "consent"),
        (65004, "access_denied", PermissionDenied, "declined"),
        (90094, "invalid_request", PermissionDenied, "administrator"),
        (90095, "invalid_request", PermissionDenied, "administrator"),
        (650057, "invalid_resource", InvalidConfig, "permission"),
        (650056, "invalid_request", InvalidConfig, "permission"),
        (65005, "invalid_resource", InvalidConfig, "permission"),
        (650052, "invalid_request", InvalidConfig, "subscription"),
        (500011, "invalid_resource", InvalidConfig, "`cloud`"),
        (70011, "invalid_scope", InvalidConfig, "scope"),
        (700022, "invalid_request", InvalidConfig, "more than one"),
        (50034, "invalid_grant", SignInNeeded, "no such user"),
        (50020, "invalid_grant", SignInNeeded, "guest"),
        (16000, "interaction_required", SignInNeeded, "does not belong"),
        (50126, "invalid_grant", Unauthenticated, "password"),
        (50053, "invalid_grant", Unauthenticated, "locked"),
        (50055, "invalid_grant", SignInNeeded, "expired"),
        (50057, "invalid_grant", PermissionDenied, "disabled"),
        (50058, "interaction_required", SignInNeeded, "nobody is signed in"),
        (50196, "invalid_grant", Throttled, "Wait"),
        (90033, "temporarily_unavailable", Unavailable, "passing"),
        (90055, "invalid_request", Throttled, "too many"),
        (9002313, "invalid_request", InvalidConfig, "malformed"),
        (900144, "invalid_request", InvalidConfig, "missing"),
        (90014, "invalid_request", InvalidConfig, "missing"),
        (900561, "invalid_request", InvalidConfig, "method"),
        (900382, "invalid_client", Unauthenticated, "across clouds"),
        (900432, "invalid_client", Unauthenticated, "across clouds"),
    ];
    let mut tenant = Tenant::start().await;
    for (code, oauth, kind, says) in rows {
        // A context of its own: a refusal is remembered for all accounts of one.
        let mut patience = impatient().patience();
        patience.faults = std::time::Duration::from_millis(100);
        patience.pauses = std::time::Duration::from_millis(100);
        tenant.context = mail_account::Context::default().with_patience(patience);
        tenant.fake.reset_counters();
        let status = if *oauth == "invalid_client" { 401 } else { 400 };
        let fault = tenant.fake.fault(Fault::entra(status, oauth, *code, &format!("Something about '{SECRET}'.")));
        let error = tenant.open().resolve_folder(&INBOX).await.unwrap_err();
        check(&error, *kind, &format!("AADSTS{code}"), &["sign-in refused", says], &code.to_string());
        let counters = tenant.fake.counters();
        assert_eq!(counters.graph_requests, 0, "{code}: nothing is asked without a token");
        if !error.is_retryable() {
            assert_eq!(counters.token_requests, 1, "{code}: the same credential is not shown twice");
        }
        fault.remove();
    }
}

// ---- The directory, and from an address to an account ----------------------------------------------------------------

fn directory(tenant: &Tenant) -> GraphDirectory {
    GraphDirectory::open(&tenant.registration(), Opening::new("invoices-graph").with_context(impatient()))
        .expect("the registration is right")
}

#[tokio::test]
async fn the_directory_is_open_before_there_is_an_account() {
    let tenant = Tenant::start().await;
    let shared = tenant.fake.mailbox("gedeeld@contoso.nl").shared().alias("oud@contoso.nl").create();
    // Asked for without the permission, it says which; asked again later, it works.
    for call in [
        directory(&tenant).mailboxes().try_next().await.map(drop),
        directory(&tenant).find("x@contoso.nl").await.map(drop),
    ] {
        let says = &["`User.Read.All`", "admin consent"];
        check(&call.unwrap_err(), ErrorKind::PermissionDenied, "Authorization_RequestDenied", says, "directory");
    }
    tenant.app.grant("User.Read.All");
    let directory = directory(&tenant);
    let all: Vec<DirectoryMailbox> = directory.mailboxes().try_collect().await.unwrap();
    assert_eq!(
        all.iter().map(|m| m.address.as_str()).collect::<Vec<_>>(),
        ["facturen@contoso.nl", "gedeeld@contoso.nl"]
    );
    let found = directory.find("oud@contoso.nl").await.unwrap().expect("an alias leads to its mailbox");
    assert_eq!((found.id, found.aliases), (shared.id(), vec!["oud@contoso.nl".to_owned()]));
    // The purpose is left out where it may not be read, and the list is not.
    let listed: Vec<_> = directory.clone().with_purpose(true).mailboxes().try_collect().await.unwrap();
    assert_eq!(listed, all);
    tenant.app.grant("MailboxSettings.Read");
    let listed: Vec<_> = self::directory(&tenant).with_purpose(true).mailboxes().try_collect().await.unwrap();
    assert_eq!(listed[1].purpose.as_deref(), Some("shared"));

    let mut registration = tenant.registration();
    registration.tenant = Some("common".into());
    let error = GraphDirectory::open(&registration, Opening::new("x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
}

/// It is not documented whether looking up an alias is an "advanced query".
#[tokio::test]
async fn an_alias_is_found_with_an_advanced_query_where_a_plain_one_is_refused() {
    let tenant = Tenant::start().await;
    tenant.app.grant("User.Read.All");
    tenant.fake.mailbox("info@contoso.nl").upn("i.de.boer@contoso.nl").create();
    let refused = Fault::error(400, "Request_UnsupportedQuery", "Operator is not supported.");
    tenant.fake.fault(refused.on(Route::ListUsers).times(1));
    inbox(&tenant.open_as("info@contoso.nl")).await;
    let asked: Vec<_> = tenant.fake.requests().into_iter().filter(|r| r.route == Route::ListUsers).collect();
    assert!(asked.len() == 2 && !asked[0].target.contains("$count") && asked[1].target.contains("$count=true"));
}

/// Activation is an account in the configuration: the directory shows many, and only those can be opened.
#[tokio::test]
async fn only_a_mailbox_that_is_configured_can_be_opened() {
    let tenant = Tenant::start().await;
    tenant.app.grant("User.Read.All");
    for address in ["directie@contoso.nl", "personeel@contoso.nl"] {
        tenant.fake.mailbox(address).create().deliver("inbox", mime("geheim", &[("salarissen.pdf", b"x")]));
    }
    tenant.mailbox.deliver("inbox", mime("factuur", &[]));
    let found = directory(&tenant).find("facturen@contoso.nl").await.unwrap().expect("it is there");
    let (id, address, enabled) = (found.id, found.address, "enabled = false");
    let config = format!(
        r#"
[registrations.contoso]
tenant = "{}"
client_id = "{}"
client_secret = "{SECRET}"
login_url = "{}"
graph_url = "{}"

[accounts.invoices-graph]
provider = "graph"
registration = "contoso"
auth = "app"
mailbox = "{id}"
address = "{address}"

[accounts.personeel]
provider = "graph"
registration = "contoso"
auth = "app"
mailbox = "personeel@contoso.nl"
{enabled}
"#,
        tenant.fake.tenant(),
        tenant.app.client_id(),
        tenant.fake.login_url(),
        tenant.fake.graph_url(),
    );
    let app = MailApp::from_str(&config, ".").unwrap();
    for name in ["directie@contoso.nl", "personeel"] {
        let error = app.account(name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    let account = app.account("invoices-graph").unwrap();
    assert_eq!(account.mailbox().name, "facturen@contoso.nl");
    let folder = account.resolve_folder(&INBOX).await.unwrap();
    let messages: Vec<_> = account.fetch_messages(&folder.id, Query::default()).try_collect().await.unwrap();
    assert_eq!(messages.iter().filter_map(|m| m.subject.as_deref()).collect::<Vec<_>>(), ["factuur"]);

    // Nor can a handle lead out of the mailbox, whoever made it up.
    let foreign = list(&tenant.open_as("directie@contoso.nl"), Query::default()).await.remove(0);
    tenant.fake.reset_counters();
    let made_up = ["../../users/directie@contoso.nl/messages", "..%2F..%2F", "x?$expand=y", "x/../../..", ".", ".."]
        .map(MessageId::new);
    for id in made_up.iter().chain([&foreign.id]) {
        let error = account.fetch_message(id).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{id}: {}", error.chain());
        let raw = account.download_attachment(id, &AttachmentId::raw()).bytes(10).await;
        assert!(raw.is_err(), "{id}");
        let moved = account.move_to_processed(std::slice::from_ref(id), &folder.id).await.remove(0);
        assert!(matches!(moved, Ok(MoveOutcome::Gone) | Err(_)), "{id}: {moved:?}");
    }
    for spec in ["id:..", "id:."] {
        let error = account.resolve_folder(&spec.parse().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{spec}");
    }
    let upwards = account.fetch_messages(&FolderId::new(".."), Query::default()).try_next().await;
    assert_eq!(upwards.unwrap_err().kind(), ErrorKind::NotFound, "not all messages of the mailbox");
    let asked = tenant.fake.requests();
    assert!(!asked.is_empty());
    for request in asked.iter().filter(|r| !matches!(r.route, Route::Batch | Route::Token)) {
        assert!(request.target.contains(&id) && !request.target.contains("directie@"), "{}", request.target);
    }
}

#[tokio::test]
async fn one_outside_the_apps_policy_is_refused_and_named() {
    for outside in ["policy", "rbac"] {
        let mut tenant = Tenant::start().await;
        tenant.fake.mailbox("directie@contoso.nl").create();
        if outside == "policy" {
            tenant.app.restrict_to(["facturen@contoso.nl"]);
        } else {
            let app = tenant.fake.app("scoped").secret(SECRET).rbac("Mail.ReadWrite", ["facturen@contoso.nl"]).create();
            tenant.app = app;
        }
        inbox(&tenant.open()).await;
        let error = tenant.open_as("directie@contoso.nl").resolve_folder(&INBOX).await.unwrap_err();
        let says: &[&str] = match outside {
            "policy" => &["directie@contoso.nl", "access policy", "Exchange administrator"],
            _ => &["directie@contoso.nl", "RBAC for Applications"],
        };
        check(&error, ErrorKind::PermissionDenied, "ErrorAccessDenied", says, outside);
    }
}

#[tokio::test]
async fn a_mailbox_that_vanishes_is_gone_whatever_is_asked() {
    let tenant = Tenant::start().await;
    let id = MessageId::new(tenant.mailbox.deliver("inbox", mime("m", &[("f.pdf", b"x")])));
    let account = tenant.open();
    let folder = inbox(&account).await;
    let file = list(&account, Query::default()).await.remove(0).attachments.remove(0).id;
    for (state, code) in [
        (MailboxState::NotEnabled, "MailboxNotEnabledForRESTAPI"),
        (MailboxState::UserDeleted, "ErrorInvalidUser"),
        (MailboxState::NonExistent, "ErrorNonExistentMailbox"),
    ] {
        tenant.mailbox.set_state(state);
        let answers = [
            account.list_folders().await.map(drop),
            account.fetch_messages(&folder, Query::default()).try_next().await.map(drop),
            account.fetch_message(&id).await.map(drop),
            account.download_attachment(&id, &file).bytes(10).await.map(drop),
            account.download_attachment(&id, &AttachmentId::raw()).bytes(10).await.map(drop),
            account.create_folder(&"Elders".parse().unwrap()).await.map(drop),
            account.move_to_processed(std::slice::from_ref(&id), &folder).await.remove(0).map(drop),
            account.mark_read(std::slice::from_ref(&id), true).await.remove(0),
        ];
        for (at, answer) in answers.into_iter().enumerate() {
            check(
                &answer.unwrap_err(),
                ErrorKind::MailboxGone,
                code,
                &["facturen@contoso.nl"],
                &format!("{state:?} {at}"),
            );
        }
    }
    // And back.
    tenant.mailbox.set_state(MailboxState::Ready);
    assert_eq!(account.fetch_message(&id).await.unwrap().id, id);
}
