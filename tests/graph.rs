//! The Graph account on the strict fake: what it makes of refusals, and what it survives.

#![cfg(all(feature = "testing", feature = "graph"))]

#[path = "support/log.rs"]
mod log;
#[path = "support/tenant.rs"]
mod tenant;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _};
use log::Log;
use mail_account::{
    AttachmentId, AttachmentKind, Context, Delivery, ErrorKind, FolderId, FolderSpec, Importer, MailAccount, Message,
    MessageId, MoveOutcome, Outcome, Patience, Query, Role, Secret, SecretSource, Status,
    auth::Auth,
    handler_fn,
    provider::graph::{GraphAccount, GraphConfig},
    testing::{
        MemoryLedger,
        graph::{Attached, Chaos, ChaosKind, Fault, GeneratedMail, Language, MailboxState, RetryAfter, Route},
    },
};
use tenant::{INBOX, SECRET, Tenant, bytes, impatient, inbox, job, list, mime, noise};

// ---- Who may, and which mailbox -------------------------------------------------------------------------------------

#[tokio::test]
async fn a_mailbox_that_cannot_be_read_says_why() {
    let tenant = Tenant::start().await;
    let rows = [
        (MailboxState::NotEnabled, "MailboxNotEnabledForRESTAPI", "licence"),
        (MailboxState::Undiscoverable, "ResourceNotFound", "licence"),
        (MailboxState::NonExistent, "ErrorNonExistentMailbox", "has no mailbox"),
        (MailboxState::UserDeleted, "ErrorInvalidUser", "no user"),
    ];
    for (state, code, says) in rows {
        tenant.mailbox.set_state(state);
        let account = tenant.open();
        let checks = [
            account.resolve_folder(&INBOX).await.map(drop),
            account.list_folders().await.map(drop),
            account.resolve_folder(&"Inbox/Processed".parse().expect("a path")).await.map(drop),
        ];
        for error in checks.map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::MailboxGone, "{state:?}: {}", error.chain());
            assert_eq!(error.code(), Some(code), "{}", error.chain());
            assert!(error.to_string().contains(says) && error.to_string().contains("facturen@contoso.nl"), "{error}");
            assert!(!error.request_ids().is_empty() && !error.is_retryable());
            assert_eq!((error.provider(), error.account()), (Some("graph"), Some("invoices-graph")));
        }
    }
    tenant.mailbox.set_state(MailboxState::Ready);
    let account = tenant.open();
    let folder = inbox(&account).await;
    tenant.mailbox.set_state(MailboxState::NotEnabled);
    let error = account.fetch_messages(&folder, Query::default()).try_next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MailboxGone, "one that vanishes is told the same way");
}

#[tokio::test]
async fn policies_and_permissions_are_told_apart() {
    let tenant = Tenant::start().await;
    tenant.fake.mailbox("directie@contoso.nl").create();
    tenant.app.restrict_to(["facturen@contoso.nl"]);
    inbox(&tenant.open()).await;
    let error = tenant.open_as("directie@contoso.nl").resolve_folder(&INBOX).await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::PermissionDenied, Some("ErrorAccessDenied")));
    assert!(
        error.to_string().contains("access policy") && error.to_string().contains("directie@contoso.nl"),
        "{error}"
    );

    let tenant = Tenant::start().await;
    tenant.app.revoke("Mail.ReadWrite");
    let error = tenant.open().resolve_folder(&INBOX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("`Mail.ReadWrite` of type Application"), "{error}");
}

#[tokio::test]
async fn an_alias_is_looked_up_where_the_directory_can_be_read() {
    let tenant = Tenant::start().await;
    tenant.fake.mailbox("info@contoso.nl").upn("i.de.boer@contoso.nl").alias("verkoop@contoso.nl").create();
    for address in ["info@contoso.nl", "verkoop@contoso.nl"] {
        let error = tenant.open_as(address).resolve_folder(&INBOX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MailboxGone);
        assert!(error.to_string().contains("alias") && error.to_string().contains("User.Read.All"), "{error}");
    }
    tenant.app.grant("User.Read.All");
    let mut tenant = tenant;
    tenant.context = Context::default();
    for address in ["info@contoso.nl", "verkoop@contoso.nl", "i.de.boer@contoso.nl"] {
        let account = tenant.open_as(address);
        inbox(&account).await;
        tenant.fake.reset_counters();
        list(&account, Query::default()).await;
        assert_eq!(tenant.fake.counters().graph_requests, 1, "it is looked up once");
    }
}

#[tokio::test]
async fn the_directory_lists_mailboxes_and_says_what_it_needs() {
    let tenant = Tenant::start().await;
    let shared = tenant.fake.mailbox("gedeeld@contoso.nl").shared().alias("oud@contoso.nl").create();
    tenant.fake.mailbox("gast@elders.nl").guest().create();
    for n in 0..1_200 {
        tenant.fake.mailbox(&format!("box{n}@contoso.nl")).create();
    }
    let error = tenant.open().directory().mailboxes().try_next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("User.Read.All"), "{error}");

    tenant.app.grant("User.Read.All");
    tenant.app.grant("MailboxSettings.Read");
    let mut tenant = tenant;
    tenant.context = Context::default();
    let directory = tenant.open().directory();
    let all: Vec<_> = directory.mailboxes().try_collect().await.unwrap();
    assert_eq!(all.len(), 1_202, "all pages, without guests");
    let found = directory.find("OUD@contoso.nl").await.unwrap().expect("by its alias");
    assert_eq!((found.id.as_str(), found.address.as_str()), (shared.id().as_str(), "gedeeld@contoso.nl"));
    assert_eq!(directory.find(&shared.id()).await.unwrap(), Some(found));
    assert_eq!(directory.find("niemand@contoso.nl").await.unwrap(), None);
    let first = directory.with_purpose(true).mailboxes().take(40).try_collect::<Vec<_>>().await.unwrap();
    let purpose = first.iter().find(|m| m.address == "gedeeld@contoso.nl").and_then(|m| m.purpose.clone());
    assert_eq!(purpose.as_deref(), Some("shared"));
    // By its object id, which is a mailbox's name as well.
    inbox(&tenant.open_as(&shared.id())).await;
}

#[tokio::test]
async fn refusals_of_the_sign_in_are_named() {
    let rows: [(u32, &str, ErrorKind); 5] = [
        (7000215, "invalid_client", ErrorKind::Unauthenticated),
        (7000222, "invalid_client", ErrorKind::Unauthenticated),
        (700016, "unauthorized_client", ErrorKind::InvalidConfig),
        (90002, "invalid_request", ErrorKind::InvalidConfig),
        (53003, "invalid_grant", ErrorKind::PermissionDenied),
    ];
    for (code, oauth, kind) in rows {
        let tenant = Tenant::start().await;
        let fault = Fault::entra(400, oauth, code, &format!("Something about '{SECRET}'."));
        tenant.fake.fault(fault);
        let error = tenant.open().resolve_folder(&INBOX).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.chain());
        assert_eq!(error.code(), Some(format!("AADSTS{code}").as_str()));
        assert!(!error.request_ids().is_empty());
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert_eq!(tenant.fake.counters().token_requests, 1, "the same credential is not shown twice");
    }
}

#[tokio::test]
async fn a_wrong_secret_is_replaced_during_a_rotation() {
    let tenant = Tenant::start().await;
    let mut app = tenant.registration();
    app.client_secret = Some(SecretSource::Literal(Secret::new("old-and-gone")));
    app.client_secret_next = Some(SecretSource::Literal(Secret::new(SECRET)));
    let config = GraphConfig::new(app, Auth::App, tenant.mailbox.address());
    inbox(&GraphAccount::open(&config, tenant.opening()).unwrap()).await;
    assert_eq!(tenant.fake.counters().token_requests, 2);
}

#[tokio::test]
async fn a_federated_token_is_read_anew_each_time() {
    let tenant = Tenant::start().await;
    let app = tenant.fake.app("cluster").federated("https://issuer.example", "job", "api://AzureADTokenExchange");
    let client_id = app.permissions(["Mail.ReadWrite"]).create().client_id();
    let file = tempfile::NamedTempFile::new().unwrap();
    let jwt = |subject: &str| {
        let now = tenant.fake.now().as_second();
        let part = |json: serde_json::Value| base64_simd::URL_SAFE_NO_PAD.encode_to_string(json.to_string());
        let claims = serde_json::json!({"iss": "https://issuer.example", "sub": subject,
            "aud": "api://AzureADTokenExchange", "nbf": now - 60, "iat": now - 60, "exp": now + 600});
        format!("{}.{}.c2ln", part(serde_json::json!({"alg": "RS256", "typ": "JWT"})), part(claims))
    };
    let mut registration = tenant.registration();
    registration.client_secret = None;
    registration.client_id = Some(client_id);
    registration.federated_token_file = Some(file.path().to_owned());
    let config = GraphConfig::new(registration, Auth::App, tenant.mailbox.address());
    let account = GraphAccount::open(&config, tenant.opening()).unwrap();
    std::fs::write(file.path(), "not a token").unwrap();
    let error = account.resolve_folder(&INBOX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    std::fs::write(file.path(), jwt("somebody else")).unwrap();
    let error = account.resolve_folder(&INBOX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{}", error.chain());
    assert!(!format!("{error:?}").contains("eyJ"), "{error:?}");
    // No waiting for the memory of the refusal: it was about another token.
    std::fs::write(file.path(), format!("{}\n", jwt("job"))).unwrap();
    inbox(&account).await;
}

#[cfg(feature = "certificate")]
#[tokio::test]
async fn a_certificate_signs_in_and_a_wrong_one_is_named() {
    let tenant = Tenant::start().await;
    let folder = tempfile::tempdir().unwrap();
    let pair = |name: &str| {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
        let certificate = rcgen::CertificateParams::new(vec!["x.example".into()]).unwrap().self_signed(&key).unwrap();
        let files = (folder.path().join(format!("{name}.crt")), folder.path().join(format!("{name}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        (certificate.pem(), files)
    };
    let ((known, files), (_, unknown)) = (pair("known"), pair("unknown"));
    let app = tenant.fake.app("signed").certificate(&known).permissions(["Mail.ReadWrite"]).create();
    let open = |cert: &std::path::Path, key: &std::path::Path| {
        let mut registration = tenant.registration();
        registration.client_secret = None;
        registration.client_id = Some(app.client_id());
        let paths = serde_json::json!({"cert_file": cert, "key_file": key});
        registration.certificate = Some(serde_json::from_value(paths).unwrap());
        let config = GraphConfig::new(registration, Auth::App, tenant.mailbox.address());
        GraphAccount::open(&config, tenant.opening()).unwrap()
    };
    inbox(&open(&files.0, &files.1)).await;
    for (cert, key) in [(&unknown.0, &unknown.1), (&files.0, &unknown.1)] {
        let error = open(cert, key).resolve_folder(&INBOX).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Unauthenticated, Some("AADSTS700027")),
            "{}",
            error.chain()
        );
    }
    let error = open(&files.1, &files.1).resolve_folder(&INBOX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("accounts.invoices-graph.certificate.cert_file"), "{error}");
}

// ---- Folders --------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_tree_marks_roles_views_and_hidden_folders() {
    let tenant = Tenant::start().await;
    for n in 0..130 {
        tenant.mailbox.create_folder(&format!("Inbox/Klant {n}"));
    }
    tenant.mailbox.create_folder_named("Inbox", "in/uit");
    tenant.mailbox.create_folder("Inbox/L'été");
    tenant.mailbox.create_hidden_folder("Verborgen");
    tenant.mailbox.create_search_folder("Ongelezen", &["Inbox"]);
    let account = tenant.open();
    let tree = account.list_folders().await.unwrap();
    let of = |path: &str| tree.iter().find(|f| f.path() == path).unwrap_or_else(|| panic!("{path}: {tree:#?}"));
    let inbox = tree.iter().find(|f| f.role == Some(Role::Inbox)).expect("an inbox");
    assert_eq!(inbox.path(), "Postvak IN", "Dutch");
    assert_eq!(tree.iter().filter(|f| f.path().starts_with("Postvak IN/Klant")).count(), 130);
    assert!(of("Verborgen").hidden && !of("Verborgen").search);
    assert!(of("Ongelezen").search && !inbox.search);
    for role in [Role::Drafts, Role::Sent, Role::Trash, Role::Junk] {
        assert_eq!(tree.iter().filter(|f| f.role == Some(role)).count(), 1, "{role}");
    }
    for spec in [r"Inbox/in\/uit", "postvak in/Klant 129", "INBOX/L'été", "role:junk", "Verborgen"] {
        let spec: FolderSpec = spec.parse().expect("a spec");
        let found = account.resolve_folder(&spec).await.unwrap_or_else(|e| panic!("{spec}: {}", e.chain()));
        assert_eq!(tree.iter().filter(|f| f.id == found.id).count(), 1, "{spec}");
        tenant.fake.reset_counters();
        account.resolve_folder(&spec).await.expect("again");
        account.folder_access(&found.id).await.expect("access");
        assert_eq!(tenant.fake.counters().graph_requests, 0, "{spec} is remembered");
    }
}

#[tokio::test]
async fn a_folder_that_exists_is_reused_whatever_the_status() {
    for status in [409, 400] {
        let tenant = Tenant::start().await;
        tenant.fake.configure(|settings| settings.folder_exists_status = status);
        let spec: FolderSpec = "Inbox/2026/Verwerkt".parse().expect("a path");
        // Both look before either makes anything, and the answer to the first attempt is lost.
        tenant.fake.fault(Fault::after_performing(504).on(Route::CreateFolder).times(1));
        let (a, b) = (tenant.open(), tenant.open());
        let (a, b) = tokio::join!(a.create_folder(&spec), b.create_folder(&spec));
        assert_eq!(a.unwrap().id, b.unwrap().id);
        assert_eq!(tenant.mailbox.folders().iter().filter(|f| f.ends_with("Verwerkt")).count(), 1);
    }
}

#[tokio::test]
async fn a_folder_made_anew_is_found_again_once() {
    let tenant = Tenant::start().await;
    tenant.mailbox.create_folder("Inbox/Werk");
    tenant.mailbox.create_folder("Inbox/Klaar");
    let account = tenant.open();
    let work = account.resolve_folder(&"Inbox/Werk".parse().expect("a path")).await.unwrap();
    let target = account.resolve_folder(&"Inbox/Klaar".parse().expect("a path")).await.unwrap();
    for path in ["Inbox/Werk", "Inbox/Klaar"] {
        tenant.mailbox.remove_folder(path);
        tenant.mailbox.create_folder(path);
    }
    tenant.mailbox.deliver("Inbox/Werk", mime("x", &[]));
    let messages: Vec<_> = account.fetch_messages(&work.id, Query::default()).try_collect().await.unwrap();
    assert_eq!(messages.len(), 1);
    let moved = account.move_to_processed(&[messages[0].id.clone()], &target.id).await.remove(0).unwrap();
    assert_eq!(moved, MoveOutcome::Moved(messages[0].id.clone()));
    assert_eq!(tenant.mailbox.count("Inbox/Klaar"), 1);
}

// ---- Messages -------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_kind_of_attachment_comes_out() {
    let tenant = Tenant::start().await;
    let id = tenant.mailbox.deliver("inbox", mime("m", &[("f.pdf", b"file")]));
    let (event, contact) = ("BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "BEGIN:VCARD\r\nEND:VCARD\r\n");
    for attached in [
        Attached::event("Overleg", event),
        Attached::contact("Jan", contact),
        Attached::reference("begroting.xlsx", "https://contoso.example/b.xlsx"),
        Attached::file(None, "image/png", "png").inline("logo@x"),
        Attached::file(Some("../../etc/passwd"), "text/plain", ""),
        Attached::file(Some("offerte.html"), "text/html", "<p>Offerte</p>"),
    ] {
        tenant.mailbox.attach(&id, attached);
    }
    let account = tenant.open();
    for message in
        [list(&account, Query::default()).await.remove(0), account.fetch_message(&MessageId::new(&*id)).await.unwrap()]
    {
        let shown: Vec<_> =
            message.attachments.iter().map(|a| (a.file_name(), a.content_type.as_str(), a.kind)).collect();
        assert_eq!(shown[0], ("f.pdf".to_owned(), "application/pdf", AttachmentKind::File));
        assert_eq!(shown[1], ("Overleg.ics".to_owned(), "text/calendar", AttachmentKind::Item));
        assert_eq!(shown[2], ("Jan.vcf".to_owned(), "text/vcard", AttachmentKind::Item));
        assert_eq!(shown[3].2, AttachmentKind::Link);
        assert!(message.attachments[4].inline && message.attachments[4].content_id.as_deref() == Some("logo@x"));
        assert_eq!(message.attachments[5].file_name(), "passwd");
        let get = |n: usize| bytes(account.download_attachment(&message.id, &message.attachments[n].id));
        assert_eq!(get(0).await, b"file");
        assert_eq!(get(1).await, event.as_bytes());
        assert_eq!(get(2).await, contact.as_bytes());
        assert_eq!(get(4).await, b"png");
        assert_eq!(get(5).await, b"");
        assert_eq!(get(6).await, b"<p>Offerte</p>");
        let error = account.download_attachment(&message.id, &message.attachments[3].id).bytes(10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.chain());
        assert!(error.to_string().contains("begroting.xlsx"), "{error}");
    }
}

#[tokio::test]
async fn inline_only_mail_has_its_attachments() {
    let tenant = Tenant::start().await;
    let raw = "From: a@b.example\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n\
        --b\r\nContent-Type: text/html\r\n\r\n<img src=\"cid:i@x\">\r\n--b\r\nContent-Type: image/png\r\n\
        Content-ID: <i@x>\r\nContent-Disposition: inline; filename=i.png\r\n\r\npng\r\n--b--\r\n";
    tenant.mailbox.deliver("inbox", raw);
    let message = list(&tenant.open(), Query::default()).await.remove(0);
    assert_eq!(message.hints.has_attachments, Some(false), "the service says that there are none");
    assert_eq!(message.attachments.len(), 1);
}

#[tokio::test]
async fn plain_text_is_asked_for_beside_html() {
    let tenant = Tenant::start().await;
    let raw = "From: a@b.example\r\nSubject: x\r\nContent-Type: text/html\r\n\r\n<p>Totaal <b>10</b></p>\r\n";
    tenant.mailbox.deliver("inbox", raw);
    let account = tenant.open();
    let message = list(&account, Query::default().with_text(true)).await.remove(0);
    assert!(message.html.as_deref().is_some_and(|html| html.contains("<b>10</b>")), "{message:?}");
    assert!(message.text.as_deref().is_some_and(|text| text.contains("Totaal 10")), "{message:?}");
    let message = list(&account, Query::default()).await.remove(0);
    assert_eq!((message.text, message.html), (None, None));
}

#[tokio::test]
async fn a_view_shows_messages_that_live_elsewhere() {
    let tenant = Tenant::start().await;
    tenant.mailbox.create_search_folder("Ongelezen", &["Inbox"]);
    tenant.mailbox.generate("inbox", &GeneratedMail::new(60).attachments(1, 1_000));
    let account = tenant.open();
    let view = account.resolve_folder(&"Ongelezen".parse().expect("a path")).await.unwrap();
    assert!(view.search);
    let all: Vec<_> = account.fetch_messages(&view.id, Query::default()).try_collect().await.unwrap();
    assert_eq!(all.len(), 60);
    // Few of them, which are asked for one by one.
    let few: Vec<MessageId> = [3, 30, 57].iter().map(|n| all[*n].id.clone()).collect();
    let kept = few.clone();
    let query = Query::default().with_skip(move |id| !kept.contains(id));
    let found: Vec<_> = account.fetch_messages(&view.id, query).try_collect().await.unwrap();
    assert_eq!(found.iter().map(|m| m.id.clone()).collect::<Vec<_>>(), few);
}

/// OData lets a service cut an expanded list short and link to the rest, and a gateway may drop the wish for the list.
/// Nothing may be missing then.
#[tokio::test]
async fn attachments_that_do_not_come_along_are_asked_for() {
    let graph = wiremock::MockServer::start().await;
    let tenant = Tenant::start().await;
    let root = graph.uri();
    let file = |n: u32| {
        serde_json::json!({"@odata.type": "#microsoft.graph.fileAttachment", "id": format!("a{n}"),
        "name": format!("{n}.pdf"), "contentBytes": "aGVsbG8="})
    };
    let message = move |n: u32, cut: bool| {
        let mut json = serde_json::json!({"id": format!("m{n}"), "parentFolderId": "f", "subject": "x",
            "receivedDateTime": "2026-01-31T10:00:00Z", "attachments": [file(1)]});
        if cut {
            json["attachments@odata.nextLink"] = format!("{root}/v1.0/rest?$skip=1").into();
        }
        json
    };
    let without = |n: u32| serde_json::json!({"id": format!("m{n}"), "receivedDateTime": "2026-01-31T10:00:00Z"});
    let link = format!("{}/v1.0/rest?$skip=2", graph.uri());
    let answer = move |request: &wiremock::Request| {
        let json = match request.url.path().rsplit('/').next() {
            Some("rest") if request.url.query() == Some("$skip=1") => {
                serde_json::json!({"value": [file(2), file(1)], "@odata.nextLink": link})
            }
            Some("rest") => serde_json::json!({"value": [file(3)]}),
            Some("m1") => message(1, true),
            Some("m3") => without(3),
            Some("attachments") => serde_json::json!({"value": [file(4), file(5)]}),
            _ => serde_json::json!({"value": [message(1, true), message(2, false), without(3)]}),
        };
        wiremock::ResponseTemplate::new(200).set_body_json(json)
    };
    wiremock::Mock::given(wiremock::matchers::any()).respond_with(answer).mount(&graph).await;
    let mut registration = tenant.registration();
    registration.graph_url = Some(graph.uri());
    let config = GraphConfig::new(registration, Auth::App, "facturen@contoso.nl");
    let account = GraphAccount::open(&config, tenant.opening()).unwrap();
    let listed: Vec<_> = account.fetch_messages(&FolderId::new("f"), Query::default()).try_collect().await.unwrap();
    let names = |m: &Message| m.attachments.iter().map(mail_account::Attachment::file_name).collect::<Vec<_>>();
    let expected = [vec!["1.pdf", "2.pdf", "3.pdf"], vec!["1.pdf"], vec!["4.pdf", "5.pdf"]];
    assert_eq!(listed.iter().map(names).collect::<Vec<_>>(), expected);
    assert!(listed[0].attachments.iter().all(|a| a.content.as_deref() == Some(b"hello")));
    assert_eq!(names(&account.fetch_message(&MessageId::new("m1")).await.unwrap()).len(), 3);
}

#[tokio::test]
async fn pages_may_be_odd() {
    let tenant = Tenant::start().await;
    tenant.fake.configure(|settings| {
        settings.empty_page_every = Some(2);
        settings.trailing_empty_page = true;
        settings.foreign_item_every = Some(2);
    });
    let start = "2026-01-31T10:00:00Z".parse().expect("a time");
    tenant.mailbox.generate("inbox", &GeneratedMail::new(150).attachments(1, 2_000).received(start, 1));
    tenant.mailbox.generate("inbox", &GeneratedMail::new(150).seed(2).attachments(1, 2_000).received(start, 0));
    let messages = list(&tenant.open(), Query::default()).await;
    let mut ids: Vec<_> = messages.iter().map(|m| m.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((messages.len(), ids.len()), (300, 300));
    assert!(messages.is_sorted_by_key(|m| m.received));
    assert!(messages.iter().all(|m| m.attachments.len() == 1));
}

#[tokio::test]
async fn pages_that_take_too_long_are_asked_for_in_halves() {
    let mut tenant = Tenant::start().await;
    tenant.context = impatient();
    tenant.fake.configure(|settings| settings.list_timeout_above = Some(30_000));
    let start = "2026-01-31T10:00:00Z".parse().expect("a time");
    // All in one second, where only places and next links lead on.
    tenant.mailbox.generate("inbox", &GeneratedMail::new(300).attachments(1, 2_000).received(start, 0));
    let messages = list(&tenant.open(), Query::default()).await;
    let mut ids: Vec<_> = messages.iter().map(|m| m.id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((messages.len(), ids.len()), (300, 300));
    let counters = tenant.fake.counters();
    assert!(counters.graph_requests < 90, "{:?}", counters.by_route);
}

// ---- What goes wrong ------------------------------------------------------------------------------------------------

#[tokio::test]
async fn every_passing_fault_is_survived() {
    let faults: Vec<(&str, Fault)> = vec![
        ("429 with decimals", Fault::too_many_requests("0.128".into())),
        ("429 with a date", Fault::too_many_requests(RetryAfter::DateIn(Duration::from_secs(1)))),
        ("429 without a time", Fault::too_many_requests(RetryAfter::Missing)),
        ("429 with nonsense", Fault::too_many_requests("soon".into())),
        ("503", Fault::unavailable(503)),
        ("503 with a time", Fault::unavailable(503).with_retry_after("0.1".into())),
        ("500", Fault::unavailable(500)),
        ("504", Fault::unavailable(504)),
        ("509", Fault::unavailable(509)),
        ("504 after performing", Fault::after_performing(504)),
        ("HTML and 502", Fault::html(502)),
        ("HTML and 200", Fault::html(200)),
        ("HTML and 404", Fault::html(404)),
        ("cut JSON", Fault::cut_json()),
        ("cut body", Fault::cut_in_body()),
        ("reset body", Fault::reset_in_body()),
        ("reset", Fault::reset_before_answer()),
        ("trickle", Fault::trickle(512, Duration::from_millis(1))),
        ("stalled body", Fault::stall_in_body()),
        ("stall", Fault::stall()),
        ("token expired", Fault::token_expired()),
        ("challenge", Fault::claims_challenge(r#"{"access_token":{"nbf":{"essential":true,"value":"1"}}}"#)),
    ];
    for (name, fault) in faults {
        let mut tenant = Tenant::start().await;
        tenant.context = impatient();
        let file = noise(300_000, 3);
        for n in 0..25 {
            tenant.mailbox.deliver("inbox", mime(&format!("m{n}"), &[("f.pdf", &file)]));
        }
        let account = tenant.open();
        let target = account.create_folder(&"Inbox/Processed".parse().expect("a path")).await.unwrap();
        let routes = [
            Route::Token,
            Route::ListMessages,
            Route::GetMessage,
            Route::GetFolder,
            Route::ListChildFolders,
            Route::Batch,
            Route::Move,
            Route::AttachmentValue,
            Route::MessageValue,
            Route::Update,
        ];
        for route in routes {
            tenant.fake.fault(fault.clone().on(route).times(1));
        }
        let fail = |e: mail_account::Error| -> ! { panic!("{name}: {}", e.chain()) };
        let listed = account.fetch_messages(&inbox(&account).await, Query::default()).try_collect::<Vec<_>>().await;
        let listed = listed.unwrap_or_else(|e| fail(e));
        assert_eq!(listed.len(), 25, "{name}");
        account.fetch_message(&listed[0].id).await.unwrap_or_else(|e| fail(e));
        let content = account.download_attachment(&listed[3].id, &listed[3].attachments[0].id).bytes(1 << 20).await;
        assert!(content.unwrap_or_else(|e| fail(e)) == file, "{name}");
        let raw = account.download_attachment(&listed[3].id, &AttachmentId::raw()).bytes(1 << 22).await;
        assert!(raw.unwrap_or_else(|e| fail(e)).ends_with(b"\r\n"), "{name}");
        let ids: Vec<_> = listed.iter().map(|m| m.id.clone()).collect();
        account.mark_read(&ids, true).await.into_iter().for_each(|answer| answer.unwrap_or_else(|e| fail(e)));
        for answer in account.move_to_processed(&ids, &target.id).await {
            assert!(matches!(answer.unwrap_or_else(|e| fail(e)), MoveOutcome::Moved(_)), "{name}");
        }
        let there = tenant.mailbox.messages("Inbox/Processed");
        assert_eq!((there.len(), tenant.mailbox.count("Inbox")), (25, 0), "{name}");
        assert!(there.iter().all(|m| m.moves == 1 && m.is_read), "{name}: nothing is moved twice");
    }
}

#[tokio::test]
async fn what_stays_wrong_is_an_error_and_never_an_empty_folder() {
    let rows = [
        ("500", Fault::unavailable(500), ErrorKind::Unavailable),
        ("HTML", Fault::html(200), ErrorKind::Unavailable),
        ("HTML and 404", Fault::html(404), ErrorKind::Unavailable),
        ("cut JSON", Fault::cut_json(), ErrorKind::Unavailable),
        ("reset", Fault::reset_before_answer(), ErrorKind::Unavailable),
        ("silence", Fault::stall(), ErrorKind::Timeout),
        ("429", Fault::too_many_requests("0.01".into()), ErrorKind::Throttled),
    ];
    for (name, fault, kind) in rows {
        let mut patience = Patience::default();
        patience.silence = Duration::from_millis(200);
        patience.faults = Duration::from_millis(600);
        patience.pauses = Duration::from_millis(600);
        patience.first_wait = Duration::from_millis(10);
        let mut tenant = Tenant::start().await;
        tenant.context = Context::default().with_patience(patience);
        tenant.mailbox.deliver("inbox", mime("m", &[]));
        let account = tenant.open();
        let folder = inbox(&account).await;
        tenant.fake.fault(fault.on(Route::ListMessages));
        let all: Vec<_> = account.fetch_messages(&folder, Query::default()).collect().await;
        assert_eq!(all.len(), 1, "{name}: one error and nothing else");
        let error = all.into_iter().next().expect("one").unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {}", error.chain());
        assert!(error.is_retryable(), "{name}");
    }
}

#[tokio::test]
async fn a_pause_that_is_asked_for_holds_for_the_whole_mailbox() {
    let tenant = Tenant::start().await;
    tenant.mailbox.generate("inbox", &GeneratedMail::new(40).attachments(1, 1_000));
    let account = tenant.open();
    let messages = list(&account, Query::default()).await;
    tenant.fake.reset_counters();
    let fault = tenant.fake.fault(Fault::throttle(Duration::from_secs(2), "1".into()));
    let all = messages.iter().take(30).map(|m| account.fetch_message(&m.id));
    assert!(futures::future::join_all(all).await.iter().all(Result::is_ok));
    // Four are on their way when it begins, and few come too early afterwards.
    assert!(fault.hits() <= 12, "{} came too early", fault.hits());
    assert!(account.usage().throttled >= 1);
}

#[tokio::test]
async fn messages_that_somebody_else_takes_are_gone_or_where_they_should_be() {
    let tenant = Tenant::start().await;
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(MessageId::new(tenant.mailbox.deliver("inbox", mime(&format!("m{n}"), &[]))));
    }
    let account = tenant.open();
    let target = account.create_folder(&"Inbox/Processed".parse().expect("a path")).await.unwrap();
    tenant.fake.fault(Fault::deleted_first().on(Route::Move).nth(5));
    tenant.fake.fault(Fault::moved_first("Inbox/Processed").on(Route::Move).nth(9));
    tenant.fake.fault(Fault::moved_first("deleteditems").on(Route::Move).nth(12));
    let outcomes: Vec<_> = account.move_to_processed(&ids, &target.id).await.into_iter().map(Result::unwrap).collect();
    for (n, outcome) in outcomes.iter().enumerate() {
        match outcome {
            MoveOutcome::Gone => assert!(tenant.mailbox.message(ids[n].as_str()).is_none(), "{n}"),
            MoveOutcome::Moved(id) => {
                let folder = tenant.mailbox.folder_of(id.as_str());
                assert_eq!(folder.as_deref().map(|f| f.ends_with("/Processed")), Some(true), "{n}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(outcomes.iter().filter(|o| **o == MoveOutcome::Gone).count(), 1);
}

/// What Graph makes of a move to where the message is already is not documented.
#[tokio::test]
async fn a_refused_move_to_where_the_message_is_already_is_done() {
    for (status, code) in [(400, "ErrorMoveCopyFailed"), (409, "ErrorIrresolvableConflict"), (412, "ErrorItemSave")] {
        let tenant = Tenant::start().await;
        let ids: Vec<_> = ["a", "b"].map(|name| tenant.mailbox.deliver("inbox", mime(name, &[]))).into();
        let account = tenant.open();
        let target = account.create_folder(&"Inbox/Processed".parse().expect("a path")).await.unwrap();
        tenant.mailbox.move_message(&ids[0], "Inbox/Processed");
        tenant.fake.fault(Fault::error(status, code, "The move was refused.").on(Route::Move));
        let ids: Vec<_> = ids.into_iter().map(MessageId::new).collect();
        let [there, elsewhere] = &account.move_to_processed(&ids, &target.id).await[..] else { panic!("two answers") };
        assert_eq!(there.as_ref().unwrap(), &MoveOutcome::Moved(ids[0].clone()), "{code}");
        let error = elsewhere.as_ref().unwrap_err();
        assert_eq!(error.code(), Some(code), "one that is elsewhere was refused: {}", error.chain());
        assert!(error.to_string().contains("The move was refused"), "{error}");
    }
}

#[tokio::test]
async fn downloads_that_nobody_reads_give_their_places_back() {
    let tenant = Tenant::start().await;
    let file = noise(6_000_000, 5);
    for n in 0..6 {
        tenant.mailbox.deliver("inbox", mime(&format!("m{n}"), &[("f.pdf", &file)]));
    }
    let account = tenant.open();
    let messages = list(&account, Query::default()).await;
    let target = account.create_folder(&"Inbox/Processed".parse().expect("a path")).await.unwrap();
    let mut open = Vec::new();
    for message in &messages[..5] {
        let mut stream = account.download_attachment(&message.id, &message.attachments[0].id).into_stream();
        let first = stream.next().await.expect("it has bytes").unwrap();
        open.push((stream, first.to_vec()));
    }
    // Five are open and nobody polls them; a move needs a place.
    account.move_to_processed(&[messages[5].id.clone()], &target.id).await.remove(0).unwrap();
    for (mut stream, mut got) in open {
        while let Some(piece) = stream.next().await {
            got.extend_from_slice(&piece.unwrap());
        }
        assert!(got == file, "it starts over on its own and gives the same bytes");
    }
    assert_eq!(tenant.fake.counters().throttled, 0);
}

/// Gateways that let only named addresses through know nothing of `$batch`.
#[tokio::test]
async fn without_batches_everything_works_one_by_one() {
    for fault in [Fault::html(404), Fault::error(404, "ResourceNotFound", "no"), Fault::html(405), Fault::html(501)] {
        let tenant = Tenant::start().await;
        tenant.fake.fault(fault.clone().on(Route::Batch));
        for n in 0..5 {
            tenant.mailbox.deliver("inbox", mime(&format!("m{n}"), &[("f.pdf", b"x")]));
        }
        let account = tenant.open();
        let tree = account.list_folders().await.unwrap_or_else(|e| panic!("{fault:?}: {}", e.chain()));
        assert!(tree.iter().any(|folder| folder.role == Some(Role::Inbox)));
        let done = account.create_folder(&"Inbox/Processed".parse().expect("a path")).await.unwrap();
        let listed = list(&account, Query::default()).await;
        let mut ids: Vec<_> = listed.into_iter().map(|message| message.id).collect();
        ids.push(MessageId::new("AAMkNone"));
        let moved = account.move_to_processed(&ids, &done.id).await;
        assert!(moved[..5].iter().all(|outcome| matches!(outcome, Ok(MoveOutcome::Moved(_)))), "{fault:?}: {moved:?}");
        assert!(matches!(moved[5], Ok(MoveOutcome::Gone)), "{moved:?}");
        assert_eq!((tenant.mailbox.count("inbox"), tenant.mailbox.count("Inbox/Processed")), (0, 5));
    }
}

#[tokio::test]
async fn tokens_go_only_to_the_service() {
    // A next link to another host, and a redirect: neither is followed.
    let elsewhere = wiremock::MockServer::start().await;
    let graph = wiremock::MockServer::start().await;
    let tenant = Tenant::start().await;
    let answer = |json: serde_json::Value| wiremock::ResponseTemplate::new(200).set_body_json(json);
    let page = serde_json::json!({"value": [], "@odata.nextLink": format!("{}/v1.0/more", elsewhere.uri())});
    wiremock::Mock::given(wiremock::matchers::path_regex("/messages$")).respond_with(answer(page)).mount(&graph).await;
    let away = wiremock::ResponseTemplate::new(302).insert_header("location", elsewhere.uri());
    wiremock::Mock::given(wiremock::matchers::any()).respond_with(away).mount(&graph).await;
    let mut registration = tenant.registration();
    registration.graph_url = Some(graph.uri());
    let account =
        GraphAccount::open(&GraphConfig::new(registration, Auth::App, "facturen@contoso.nl"), tenant.opening())
            .unwrap();
    let error = account.fetch_messages(&FolderId::new("f"), Query::default()).try_next().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed, "{}", error.chain());
    let error = account.resolve_folder(&INBOX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.chain());
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn no_secret_is_logged_or_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut tenant = Tenant::start().await;
    tenant.context = impatient();
    tenant.mailbox.deliver("inbox", mime("m", &[("f.pdf", b"x")]));
    tenant.fake.fault(Fault::token_expired().on(Route::ListMessages).times(1));
    tenant.fake.fault(Fault::unavailable(503).on(Route::GetFolder).times(1));
    let account = tenant.open();
    let message = list(&account, Query::default()).await.remove(0);
    bytes(account.download_attachment(&message.id, &AttachmentId::raw())).await;
    let config = GraphConfig::new(tenant.registration(), Auth::App, "facturen@contoso.nl");
    tenant.app.replace_secret("another");
    tenant.context = Context::default();
    let refused = tenant.open();
    let error = refused.resolve_folder(&INBOX).await.unwrap_err();
    let shown = format!("{account:?} {account:#?} {config:?} {error:?} {} {:?}", error.chain(), tenant.context);
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("graph"), "something is logged");
    for text in [shown, logged] {
        assert!(!text.contains("canary"), "the secret");
        assert!(!text.contains("eyJ") && !text.contains("Bearer "), "a token");
    }
}

/// Everything arrives once, whole, and is moved once, whatever goes wrong meanwhile.
async fn chaos(percent: f64, seed: u64) {
    const N: u64 = 2_000;
    let mut tenant = Tenant::start().await;
    tenant.context = impatient();
    let start = "2026-01-31T10:00:00Z".parse().expect("a time");
    tenant.mailbox.generate("inbox", &GeneratedMail::new(N).seed(seed).attachments(1, 3_000).received(start, 1));
    let expected: HashMap<String, [u8; 32]> = tenant
        .mailbox
        .messages("inbox")
        .into_iter()
        .map(|m| (m.id, m.attachments[0].sha256().expect("a file")))
        .collect();
    // Silence costs a whole deadline each; it is tried on its own above.
    tenant.fake.chaos(Chaos::new(percent, seed).without(ChaosKind::Stall));
    let account: Arc<dyn MailAccount> = Arc::new(tenant.open());
    let importer = Importer::new(job(), [account], Arc::new(MemoryLedger::new())).with_context(tenant.context.clone());
    let got = Arc::new(Mutex::new(BTreeMap::<String, Vec<[u8; 32]>>::new()));
    let handler = handler_fn({
        let got = Arc::clone(&got);
        move |mail: Delivery| {
            let got = Arc::clone(&got);
            async move {
                let attachments = mail.attachments();
                let bytes = attachments[0].content().bytes(1 << 20).await?;
                let hash = <sha2::Sha256 as sha2::Digest>::digest(&bytes).into();
                got.lock().unwrap().entry(mail.id().to_string()).or_default().push(hash);
                Ok(Outcome::Imported)
            }
        }
    });
    let report = importer.run(handler).await.expect("the ledger can be read");
    let report = &report.accounts[0];
    assert_eq!(report.status, Status::Done, "{:?}", report.error.as_ref().map(|e| e.chain().to_string()));
    assert!(report.counts.closes() && report.counts.imported == N && report.counts.unmoved == 0, "{:?}", report.counts);
    let processed = tenant.mailbox.messages("Inbox/Processed");
    assert_eq!((processed.len() as u64, tenant.mailbox.count("inbox")), (N, 0));
    assert!(processed.iter().all(|m| m.moves == 1), "nothing is moved twice");
    assert_eq!(got.lock().unwrap().len() as u64, N);
    for hashes in got.lock().unwrap().values() {
        assert_eq!(hashes.len(), 1, "nothing is handed over twice");
    }
    let mut sums: Vec<_> = got.lock().unwrap().values().map(|hashes| hashes[0]).collect();
    let mut right: Vec<_> = expected.into_values().collect();
    sums.sort_unstable();
    right.sort_unstable();
    assert!(sums == right, "the bytes are right");
    let struck: u64 = tenant.fake.chaos_struck().values().sum();
    println!("{percent} %: {struck} faults, {:?}", tenant.fake.counters());
    assert!(struck > N / 50, "{struck} faults");
    assert_eq!(tenant.fake.counters().throttled, 0, "none of our own making");
}

#[tokio::test]
async fn chaos_at_five_per_cent() {
    chaos(5.0, 11).await;
}

#[tokio::test]
async fn chaos_at_twenty_per_cent() {
    chaos(20.0, 12).await;
}

#[tokio::test]
async fn opening_does_nothing_and_checks_shapes() {
    let tenant = Tenant::start().await;
    let bad = |change: &dyn Fn(&mut GraphConfig)| {
        let mut config = GraphConfig::new(tenant.registration(), Auth::App, "facturen@contoso.nl");
        change(&mut config);
        GraphAccount::open(&config, tenant.opening()).unwrap_err()
    };
    let secret = |text: &str| Some(SecretSource::Literal(Secret::new(text)));
    for (error, says) in [
        (bad(&|c| c.app.client_secret = secret("11111111-2222-3333-4444-555555555555")), "secret's ID"),
        (bad(&|c| c.app.client_secret = secret(" blank")), "blanks"),
        (bad(&|c| c.app.tenant = Some("common".into())), "only one tenant"),
        (bad(&|c| c.app.client_id = Some("invoices".into())), "Application (client) ID"),
        (bad(&|c| c.mailbox = "facturen".into()), "mailbox"),
        (bad(&|c| c.app.graph_url = Some("http://graph.example".into())), "https"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(says), "{error}");
    }
    tenant.open();
    let counters = tenant.fake.counters();
    assert_eq!((counters.round_trips, counters.token_requests), (0, 0));
    assert_eq!(tenant.fake.mailbox("x@contoso.nl").language(Language::Dutch).create().address(), "x@contoso.nl");
}
