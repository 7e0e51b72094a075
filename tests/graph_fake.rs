//! The Graph fake refuses what the service refuses, and does what the service does. Driven with
//! plain HTTP, so that nothing of the library's own client stands between.

#![cfg(all(feature = "testing", feature = "graph"))]

use mail_account::testing::graph::{
    App, Attached, Chaos, ChaosKind, Fault, GeneratedMail, GraphFake, Language, Mailbox, MailboxState, Paging,
    RetryAfter, Route,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};

const IMMUTABLE: (&str, &str) = ("Prefer", "IdType=\"ImmutableId\"");

struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn values(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["value"].as_array().cloned().unwrap_or_default()
    }

    fn ids(&self) -> Vec<String> {
        self.values().iter().map(|value| value["id"].as_str().unwrap().to_owned()).collect()
    }

    fn next(&self) -> Option<String> {
        self.json()["@odata.nextLink"].as_str().map(str::to_owned)
    }

    #[track_caller]
    fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", self.json());
    }

    /// Of the token endpoint.
    #[track_caller]
    fn aadsts(&self, status: u16, error: &str, code: u32) {
        let body = self.json();
        assert_eq!((self.status, body["error"].as_str().unwrap()), (status, error), "{body}");
        assert_eq!(body["error_codes"], json!([code]), "{body}");
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")));
    }
}

struct Rig {
    fake: GraphFake,
    app: App,
    mailbox: Mailbox,
    http: reqwest::Client,
    token: String,
}

impl Rig {
    async fn new() -> Rig {
        Rig::with(&["Mail.ReadWrite"]).await
    }

    async fn with(permissions: &[&str]) -> Rig {
        let fake = GraphFake::start().await;
        let app = fake.app("tests").secret("right").permissions(permissions.iter().copied()).create();
        let mailbox = fake.mailbox("facturen@contoso.nl").create();
        let mut rig = Rig { fake, app, mailbox, http: reqwest::Client::new(), token: String::new() };
        rig.token = rig.fresh_token().await;
        rig
    }

    async fn token_request(&self, tenant: &str, form: &[(&str, &str)]) -> Answer {
        let url = format!("{}/{tenant}/oauth2/v2.0/token", self.fake.login_url());
        send(self.http.post(url).form(form)).await
    }

    async fn fresh_token(&self) -> String {
        self.token_for("https://graph.microsoft.com/.default").await
    }

    async fn token_for(&self, scope: &str) -> String {
        let client_id = self.app.client_id();
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &client_id),
            ("client_secret", "right"),
            ("scope", scope),
        ];
        let answer = self.token_request(&self.fake.tenant(), &form).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let url =
            if path.starts_with("http") { path.to_owned() } else { format!("{}/v1.0{path}", self.fake.graph_url()) };
        self.http.request(method.parse().unwrap(), url).bearer_auth(&self.token)
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.request("GET", path)).await
    }

    /// A path below the mailbox.
    async fn mail(&self, path: &str) -> Answer {
        self.get(&self.at(path)).await
    }

    fn at(&self, path: &str) -> String {
        format!("/users/{}/{path}", self.mailbox.id())
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request("POST", path).json(&body)).await
    }

    async fn batch(&self, requests: Value) -> Answer {
        self.post("/$batch", json!({"requests": requests})).await
    }

    async fn move_to(&self, id: &str, folder: &str) -> Answer {
        self.post(&self.at(&format!("messages/{id}/move")), json!({"destinationId": folder})).await
    }

    /// One message a minute; returns the immutable ids.
    fn deliver(&self, count: usize) -> Vec<String> {
        let start: jiff::Timestamp = "2026-03-01T09:00:00Z".parse().unwrap();
        (0..count)
            .map(|number| {
                let received = start + jiff::SignedDuration::from_secs(60 * number as i64);
                self.mailbox.deliver_at("inbox", mime(&format!("Invoice {number}")), received)
            })
            .collect()
    }
}

async fn send(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await.expect("a whole body").to_vec();
    Answer { status, headers, body }
}

fn mime(subject: &str) -> String {
    format!(
        "From: Supplier <a@supplier.example>\r\nTo: facturen@contoso.nl\r\nSubject: {subject}\r\nMessage-ID: <{}@supplier.example>\r\nDate: Sun, 01 Mar 2026 09:00:00 +0000\r\n\r\nhello\r\n",
        subject.replace(' ', ".")
    )
}

fn with_file(subject: &str, name: &str, bytes: &[u8]) -> String {
    let content = base64_simd::STANDARD.encode_to_string(bytes);
    format!(
        "From: a@supplier.example\r\nSubject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\r\n{content}\r\n--b--\r\n"
    )
}

// Pages --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_page_of_messages_is_ten_with_an_odd_skip() {
    let rig = Rig::new().await;
    rig.deliver(25);
    let page = rig.mail("mailFolders/inbox/messages").await;
    assert_eq!(page.values().len(), 10);
    let next = page.next().unwrap();
    assert!(next.starts_with(&rig.fake.graph_url()), "{next}");
    assert!(next.contains("$skip=11"), "{next}");
    let mut seen: Vec<String> = page.ids();
    let mut next = Some(next);
    while let Some(url) = next {
        let page = rig.get(&url).await;
        seen.extend(page.ids());
        next = page.next();
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 25);
}

#[tokio::test]
async fn a_page_of_folders_is_ten_and_hidden_ones_are_asked_for() {
    let rig = Rig::new().await;
    rig.mailbox.create_folder("Projects");
    let page = rig.mail("mailFolders").await;
    assert_eq!(page.values().len(), 10);
    let rest = rig.get(&page.next().unwrap()).await;
    assert_eq!(rest.values().len(), 1);
    assert!(rest.next().is_none());
    let all = rig.mail("mailFolders?$top=100").await.values();
    assert!(all.iter().all(|folder| folder["isHidden"] == false));
    let hidden = rig.mail("mailFolders?$top=100&includeHiddenFolders=true").await.values();
    assert_eq!(hidden.len(), all.len() + 2);
}

#[tokio::test]
async fn moving_shifts_skip_paging() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.foreign_item_every = None);
    rig.deliver(20);
    let page = rig.mail("mailFolders/inbox/messages").await;
    for id in page.ids() {
        let moved = rig.move_to(&id, "archive").await;
        assert_eq!(moved.status, 201, "{}", moved.json());
    }
    let rest = rig.get(&page.next().unwrap()).await;
    assert!(rest.values().is_empty(), "the ten that are left stand before $skip=10");
    assert_eq!(rig.mailbox.count("inbox"), 10);
}

#[tokio::test]
async fn pages_can_be_empty_and_links_can_hide_their_position() {
    let rig = Rig::new().await;
    rig.deliver(12);
    rig.fake.configure(|settings| {
        settings.empty_page_every = Some(2);
        settings.paging = Paging::SkipToken;
    });
    let (mut sizes, mut seen) = (Vec::new(), HashSet::new());
    let mut next = Some(rig.at("mailFolders/inbox/messages?$top=4"));
    while let Some(url) = next {
        let page = rig.get(&url).await;
        sizes.push(page.values().len());
        seen.extend(page.ids());
        next = page.next();
        assert!(next.as_ref().is_none_or(|next| next.contains("$skiptoken=") && next.contains("$top=4")));
    }
    assert_eq!(sizes, [4, 0, 4, 0, 4]);
    assert_eq!(seen.len(), 12);
    let invalid = rig.mail("mailFolders/inbox/messages?$skiptoken=abc").await;
    invalid.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_full_page_can_be_followed_by_an_empty_one() {
    let rig = Rig::new().await;
    rig.deliver(3);
    rig.fake.configure(|settings| settings.trailing_empty_page = true);
    let page = rig.mail("mailFolders/inbox/messages?$top=3").await;
    let last = rig.get(&page.next().expect("a next link")).await;
    assert!(last.values().is_empty() && last.next().is_none());
}

#[tokio::test]
async fn top_has_bounds() {
    let rig = Rig::with(&["Mail.ReadWrite", "User.Read.All"]).await;
    for top in ["0", "1001", "-1", "ten", ""] {
        let page = rig.mail(&format!("mailFolders/inbox/messages?$top={top}")).await;
        page.refused(400, "ErrorInvalidUrlQuery");
    }
    assert_eq!(rig.mail("mailFolders/inbox/messages?$top=1000").await.status, 200);
    rig.get("/users?$top=1000").await.refused(400, "ErrorInvalidUrlQuery");
    assert_eq!(rig.get("/users?$top=999").await.status, 200);
}

#[tokio::test]
async fn a_list_that_is_too_heavy_times_out() {
    let rig = Rig::new().await;
    for number in 0..4 {
        rig.mailbox.deliver("inbox", with_file(&format!("{number}"), "a.pdf", &[7; 50_000]));
    }
    rig.fake.configure(|settings| settings.list_timeout_above = Some(200_000));
    rig.mail("mailFolders/inbox/messages?$expand=attachments&$top=4").await.refused(504, "UnknownError");
    assert_eq!(rig.mail("mailFolders/inbox/messages?$expand=attachments&$top=2").await.values().len(), 2);
}

// Ids ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_move_gives_a_new_id_unless_immutable_ones_are_asked_for() {
    let rig = Rig::new().await;
    let immutable = rig.deliver(1).remove(0);
    let listed = rig.mail("mailFolders/inbox/messages").await;
    assert!(listed.header("preference-applied").is_none());
    let old = listed.ids().remove(0);
    assert!(old.starts_with("AAMk") && old != immutable);
    let moved = rig.move_to(&old, "archive").await;
    assert_eq!(moved.status, 201);
    let new = moved.json()["id"].as_str().unwrap().to_owned();
    assert_ne!(new, old);
    rig.mail(&format!("messages/{old}")).await.refused(404, "ErrorItemNotFound");
    rig.move_to(&old, "inbox").await.refused(404, "ErrorItemNotFound");
    assert_eq!(rig.mail(&format!("messages/{new}")).await.status, 200);

    let request = rig.request("GET", &rig.at("mailFolders/archive/messages")).header(IMMUTABLE.0, IMMUTABLE.1);
    let listed = send(request).await;
    assert_eq!(listed.header("preference-applied"), Some("IdType=\"ImmutableId\""));
    assert_eq!(listed.ids(), std::slice::from_ref(&immutable));
    for folder in ["inbox", "archive", "archive"] {
        let request = rig
            .request("POST", &rig.at(&format!("messages/{immutable}/move")))
            .header(IMMUTABLE.0, IMMUTABLE.1)
            .json(&json!({"destinationId": folder}));
        let moved = send(request).await;
        assert_eq!((moved.status, moved.json()["id"].as_str().unwrap()), (201, immutable.as_str()));
    }
}

#[tokio::test]
async fn ids_differ_only_in_case_and_hold_every_awkward_character() {
    let rig = Rig::new().await;
    rig.deliver(2);
    let ids = rig.mail("mailFolders/inbox/messages").await.ids();
    assert_ne!(ids[0], ids[1]);
    assert!(ids[0].eq_ignore_ascii_case(&ids[1]));
    assert!(ids.iter().all(|id| id.contains('-') && id.contains('_') && id.ends_with("==")));
    let subjects: HashSet<String> = {
        let mut found = HashSet::new();
        for id in &ids {
            found.insert(rig.mail(&format!("messages/{id}?$select=subject")).await.json()["subject"].to_string());
        }
        found
    };
    assert_eq!(subjects.len(), 2);
    // `=` may stand escaped or not.
    assert_eq!(rig.mail(&format!("messages/{}", ids[0].replace('=', "%3D"))).await.status, 200);
}

#[tokio::test]
async fn ids_that_are_not_this_mailboxs_are_told_apart() {
    let rig = Rig::new().await;
    rig.deliver(1);
    let other = rig.fake.mailbox("inkoop@contoso.nl").create();
    let foreign = other.deliver("inbox", mime("elsewhere"));
    rig.mail(&format!("messages/{foreign}")).await.refused(404, "ErrorInvalidMailboxItemId");
    let foreign = other.folder_id("inbox").unwrap();
    rig.mail(&format!("mailFolders/{foreign}/messages")).await.refused(404, "ErrorInvalidMailboxItemId");
    rig.mail("messages/nonsense").await.refused(400, "ErrorInvalidIdMalformed");
    rig.mail("messages/AAMk%2FAAA").await.refused(400, "RequestBroker--ParseUri");
    rig.mail("messages/AAMk/AAA").await.refused(400, "RequestBroker--ParseUri");
    let id = rig.mail("mailFolders/inbox/messages").await.ids().remove(0);
    rig.mail(&format!("messages/{}", id.to_uppercase())).await.refused(400, "ErrorInvalidIdMalformed");
    rig.mail(&format!("messages/{}", id.replace('_', "+"))).await.refused(400, "ErrorInvalidIdMalformed");
}

#[tokio::test]
async fn ids_are_translated() {
    let rig = Rig::with(&["Mail.ReadWrite", "User.Read.All"]).await;
    let immutable = rig.deliver(1).remove(0);
    let mutable = rig.mailbox.mutable_id(&immutable).unwrap();
    let body = json!({"inputIds": [mutable], "sourceIdType": "restId", "targetIdType": "restImmutableEntryId"});
    let answer = rig.post(&rig.at("translateExchangeIds"), body).await;
    assert_eq!(answer.values()[0]["targetId"], immutable);
}

// Queries ------------------------------------------------------------------------------------------

#[tokio::test]
async fn filters_that_do_not_fit_the_order_are_inefficient() {
    let rig = Rig::new().await;
    rig.deliver(3);
    let list = |query: &str| rig.at(&format!("mailFolders/inbox/messages?{query}"));
    for query in [
        "$filter=isRead eq false&$orderby=receivedDateTime asc",
        "$filter=isRead eq false and receivedDateTime ge 1900-01-01T00:00:00Z&$orderby=receivedDateTime",
        "$filter=receivedDateTime ge 1900-01-01T00:00:00Z&$orderby=subject",
    ] {
        rig.get(&list(query)).await.refused(400, "InefficientFilter");
    }
    let good = "$filter=receivedDateTime ge 1900-01-01T00:00:00Z and isRead eq false&$orderby=receivedDateTime asc";
    let found = rig.get(&list(good)).await.values();
    assert_eq!(found.len(), 3);
    let times: Vec<&str> = found.iter().map(|message| message["receivedDateTime"].as_str().unwrap()).collect();
    assert!(times.is_sorted());
    // Without an order the service picks its own: newest first.
    let plain = rig.get(&list("$filter=isRead eq false")).await.values();
    let times: Vec<&str> = plain.iter().map(|message| message["receivedDateTime"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
}

#[tokio::test]
async fn filters_find_what_they_say() {
    let rig = Rig::new().await;
    rig.deliver(4);
    let found = |filter: &str| {
        let filter = filter.replace('+', "%2B").replace('<', "%3C").replace('>', "%3E");
        rig.at(&format!("mailFolders/inbox/messages?$select=subject&$filter={filter}"))
    };
    for (filter, count) in [
        ("receivedDateTime ge 2026-03-01T09:02:00Z", 2),
        ("receivedDateTime gt 2026-03-01T09:02:00Z", 1),
        ("receivedDateTime ge 2026-03-01T09:01:00Z and receivedDateTime lt 2026-03-01T09:02:00Z", 1),
        ("internetMessageId eq '<Invoice.2@supplier.example>'", 1),
        ("from/emailAddress/address eq 'A@supplier.example'", 4),
        ("subject eq 'Invoice 1' or contains(subject,'3')", 2),
        ("hasAttachments eq true", 0),
    ] {
        assert_eq!(rig.get(&found(filter)).await.values().len(), count, "{filter}");
    }
    for filter in ["receivedDateTime ge '2026-03-01T09:02:00Z'", "isRead eq 'false'", "colour eq 'red'", "subject eq"] {
        rig.get(&found(filter)).await.refused(400, "BadRequest");
    }
}

#[tokio::test]
async fn unknown_parameters_and_properties_are_refused() {
    let rig = Rig::new().await;
    let id = rig.deliver(1).remove(0);
    rig.mail("mailFolders/inbox/messages?$selct=id").await.refused(400, "BadRequest");
    rig.mail("mailFolders/inbox/messages?includeHiddenFolders=true").await.refused(400, "BadRequest");
    rig.mail("mailFolders/inbox/messages?$top=5&$top=6").await.refused(400, "BadRequest");
    rig.mail("mailFolders/inbox/messages?$select=subject,size").await.refused(400, "RequestBroker--ParseUri");
    rig.mail("mailFolders/inbox/messages?$orderby=size").await.refused(400, "RequestBroker--ParseUri");
    rig.mail("mailFolders/inbox/messages?$expand=extensions").await.refused(400, "BadRequest");
    rig.mail("mailFolders?$select=name").await.refused(400, "RequestBroker--ParseUri");
    rig.mail(&format!("messages/{id}?$top=1")).await.refused(400, "BadRequest");
    rig.mail(&format!("messages/{id}/$value?$select=id")).await.refused(400, "BadRequest");
    rig.mail("mailFolders/inbox/mesages").await.refused(400, "RequestBroker--ParseUri");
    rig.get("/user").await.refused(400, "RequestBroker--ParseUri");
    rig.mail("events").await.refused(501, "NotModelledByTheFake");
    let beta = format!("{}/beta/users/x/messages", rig.fake.graph_url());
    rig.get(&beta).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn content_id_needs_a_cast() {
    let rig = Rig::new().await;
    let id = rig.mailbox.deliver("inbox", with_file("x", "a.pdf", b"1"));
    let path = format!("messages/{id}/attachments?$select=id,contentId");
    let refused = rig.mail(&path).await;
    refused.refused(400, "RequestBroker--ParseUri");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message, "Could not find a property named 'contentId' on type 'microsoft.graph.attachment'.");
    let expand = "mailFolders/inbox/messages?$expand=attachments($select=id,contentBytes)";
    rig.mail(expand).await.refused(400, "RequestBroker--ParseUri");
    let cast = "mailFolders/inbox/messages?$select=id&$expand=attachments($select=id,name,contentType,size,isInline,microsoft.graph.fileAttachment/contentId)";
    let found = rig.mail(cast).await.values();
    let attachment = &found[0]["attachments"][0];
    assert!(attachment["contentBytes"].is_null() && attachment.as_object().unwrap().contains_key("contentId"));
    let cast = "mailFolders/inbox/messages?$expand=attachments($select=microsoft.graph.fileAttachment/contentBytes)";
    assert_eq!(rig.mail(cast).await.values()[0]["attachments"][0]["contentBytes"], "MQ==");
}

#[tokio::test]
async fn search_does_not_go_with_order_or_filter() {
    let rig = Rig::new().await;
    rig.deliver(3);
    rig.mail("messages?$search=\"x\"&$orderby=receivedDateTime").await.refused(400, "SearchWithOrderBy");
    rig.mail("messages?$search=\"x\"&$filter=isRead eq false").await.refused(400, "SearchWithFilter");
    rig.mail("messages?$search=x").await.refused(400, "BadRequest");
    assert_eq!(rig.mail("messages?$search=\"subject:Invoice 1\"").await.values().len(), 1);
}

#[tokio::test]
async fn the_size_comes_as_an_extended_property() {
    let rig = Rig::new().await;
    rig.mailbox.deliver("inbox", with_file("x", "a.pdf", &[0; 1000]));
    let query =
        "mailFolders/inbox/messages?$select=id&$expand=singleValueExtendedProperties($filter=id eq 'LONG 0x0E08')";
    let found = rig.mail(query).await.values();
    let property = &found[0]["singleValueExtendedProperties"][0];
    assert_eq!(property["id"], "Long 0xe08");
    assert!(property["value"].as_str().unwrap().parse::<u64>().unwrap() > 1000);
    rig.mail("messages?$expand=singleValueExtendedProperties").await.refused(400, "BadRequest");
}

#[tokio::test]
async fn selected_properties_come_and_id_with_them() {
    let rig = Rig::new().await;
    rig.deliver(1);
    let one = rig.mail("mailFolders/inbox/messages?$select=subject&$count=true").await;
    assert_eq!(one.json()["@odata.count"], 1);
    let names: Vec<String> = one.values()[0].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["@odata.etag", "id", "subject"]);
    let all = rig.mail("mailFolders/inbox/messages").await.values().remove(0);
    assert!(all["internetMessageHeaders"].is_null() && all["uniqueBody"].is_null());
    assert_eq!(all["body"]["contentType"], "html");
    let headers = rig.mail("mailFolders/inbox/messages?$select=internetMessageHeaders").await.values().remove(0);
    assert_eq!(headers["internetMessageHeaders"][0]["name"], "From");
    let request = rig
        .request("GET", &rig.at("mailFolders/inbox/messages"))
        .header("Prefer", "IdType=\"ImmutableId\", outlook.body-content-type=\"text\"");
    let text = send(request).await;
    assert_eq!(text.header("preference-applied"), Some("IdType=\"ImmutableId\", outlook.body-content-type=\"text\""));
    assert_eq!(text.values()[0]["body"], json!({"contentType": "text", "content": "hello\r\n"}));
}

// Who may what ---------------------------------------------------------------------------------------

#[tokio::test]
async fn tokens_are_looked_at_closely() {
    let mut rig = Rig::new().await;
    let list = rig.at("mailFolders/inbox/messages");
    let url = format!("{}/v1.0{list}", rig.fake.graph_url());
    let without = send(rig.http.get(&url)).await;
    without.refused(401, "InvalidAuthenticationToken");
    assert!(without.header("www-authenticate").is_some());
    for bad in ["garbage", "a.b", "a.b.c", "eyJhbGciOiJub25lIn0.eyJhdWQiOiJ4In0.x"] {
        send(rig.http.get(&url).bearer_auth(bad)).await.refused(401, "InvalidAuthenticationToken");
    }
    let elsewhere = rig.token_for("https://outlook.office365.com/.default").await;
    let wrong = send(rig.http.get(&url).bearer_auth(elsewhere)).await;
    wrong.refused(401, "InvalidAuthenticationToken");
    assert!(wrong.json()["error"]["message"].as_str().unwrap().contains("audience"));
    assert_eq!(rig.get(&list).await.status, 200);
    rig.fake.advance(Duration::from_secs(3600));
    let expired = rig.get(&list).await;
    expired.refused(401, "InvalidAuthenticationToken");
    assert!(expired.json()["error"]["message"].as_str().unwrap().contains("expired"));
    rig.token = rig.fresh_token().await;
    assert_eq!(rig.get(&list).await.status, 200);
}

#[tokio::test]
async fn me_needs_a_person() {
    let rig = Rig::new().await;
    rig.get("/me").await.refused(400, "BadRequest");
    rig.get("/me/messages").await.refused(400, "BadRequest");
}

#[tokio::test]
async fn permissions_are_those_in_the_token() {
    let mut rig = Rig::with(&["Mail.ReadBasic.All"]).await;
    let id = rig.mailbox.deliver("inbox", with_file("x", "a.pdf", b"1"));
    let list = rig.mail("mailFolders/inbox/messages").await.values().remove(0);
    assert!(list["body"].is_null() && list["bodyPreview"].is_null() && list["subject"] == "x");
    for path in [
        "mailFolders/inbox/messages?$select=body".to_owned(),
        "mailFolders/inbox/messages?$expand=attachments".to_owned(),
        "mailFolders/inbox/messages?$search=\"x\"".to_owned(),
        format!("messages/{id}/attachments"),
        format!("messages/{id}/$value"),
    ] {
        rig.mail(&path).await.refused(403, "ErrorAccessDenied");
    }
    rig.move_to(&id, "archive").await.refused(403, "ErrorAccessDenied");
    rig.app.grant("Mail.Read");
    rig.mail(&format!("messages/{id}/$value")).await.refused(403, "ErrorAccessDenied");
    rig.token = rig.fresh_token().await;
    assert_eq!(rig.mail(&format!("messages/{id}/$value")).await.status, 200);
    rig.move_to(&id, "archive").await.refused(403, "ErrorAccessDenied");
    rig.post(&rig.at("mailFolders"), json!({"displayName": "x"})).await.refused(403, "ErrorAccessDenied");
    rig.get("/users").await.refused(403, "Authorization_RequestDenied");
    rig.mail("mailboxSettings").await.refused(403, "ErrorAccessDenied");
    assert_eq!(rig.mailbox.count("inbox"), 1);
}

#[tokio::test]
async fn without_any_permission_there_is_a_token_and_403() {
    let rig = Rig::with(&[]).await;
    rig.mail("mailFolders").await.refused(403, "ErrorAccessDenied");
}

#[tokio::test]
async fn rbac_works_without_roles_in_the_token_and_only_in_its_scope() {
    let fake = GraphFake::start().await;
    let app = fake.app("x").secret("right").rbac("Application Mail.ReadWrite", ["facturen@contoso.nl"]).create();
    let mailbox = fake.mailbox("facturen@contoso.nl").create();
    let other = fake.mailbox("directie@contoso.nl").create();
    let mut rig = Rig { fake, app, mailbox, http: reqwest::Client::new(), token: String::new() };
    rig.token = rig.fresh_token().await;
    assert_eq!(rig.mail("mailFolders").await.status, 200);
    rig.get(&format!("/users/{}/mailFolders", other.id())).await.refused(403, "ErrorAccessDenied");
}

#[tokio::test]
async fn a_mailbox_can_be_missing_in_many_ways() {
    let rig = Rig::new().await;
    rig.get("/users/nobody@contoso.nl/mailFolders").await.refused(404, "ErrorInvalidUser");
    rig.fake.mailbox("f@contoso.nl").alias("alias@contoso.nl").create();
    rig.get("/users/alias@contoso.nl/mailFolders").await.refused(404, "ErrorInvalidUser");
    rig.fake.mailbox("mail@contoso.nl").upn("upn@contoso.onmicrosoft.com").create();
    rig.get("/users/mail@contoso.nl/mailFolders").await.refused(404, "ErrorInvalidUser");
    assert_eq!(rig.get("/users/UPN@contoso.onmicrosoft.com/mailFolders").await.status, 200);
    for (state, code) in [
        (MailboxState::NotEnabled, "MailboxNotEnabledForRESTAPI"),
        (MailboxState::Undiscoverable, "ResourceNotFound"),
        (MailboxState::NonExistent, "ErrorNonExistentMailbox"),
        (MailboxState::UserDeleted, "ErrorInvalidUser"),
    ] {
        rig.mailbox.set_state(state);
        rig.mail("mailFolders").await.refused(404, code);
    }
    rig.mailbox.set_state(MailboxState::Ready);
    rig.app.restrict_to(["f@contoso.nl"]);
    let blocked = rig.mail("mailFolders").await;
    blocked.refused(403, "ErrorAccessDenied");
    assert!(blocked.json()["error"]["message"].as_str().unwrap().contains("[RAOP]"));
    assert_eq!(rig.get("/users/f@contoso.nl/mailFolders").await.status, 200);
}

#[tokio::test]
async fn the_directory_lists_users_by_the_hundred() {
    let rig = Rig::with(&["User.Read.All", "MailboxSettings.Read"]).await;
    for number in 0..104 {
        rig.fake.mailbox(&format!("user{number}@contoso.nl")).create();
    }
    let shared = rig.fake.mailbox("info@contoso.nl").alias("sales@contoso.nl").shared().create();
    let first = rig.get("/users").await;
    assert_eq!(first.values().len(), 100);
    assert!(first.values()[0]["proxyAddresses"].is_null());
    let next = first.next().unwrap();
    assert!(next.contains("$skiptoken="), "{next}");
    assert_eq!(rig.get(&next).await.values().len(), 6);
    rig.get("/users?$skip=10").await.refused(400, "BadRequest");

    let select = "id,mail,userPrincipalName,proxyAddresses,accountEnabled,userType";
    let filter = "mail eq 'sales@contoso.nl' or proxyAddresses/any(p:p eq 'smtp:sales@contoso.nl')";
    let found = rig.get(&format!("/users?$select={select}&$filter={filter}")).await.values();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["id"], shared.id());
    assert_eq!(found[0]["proxyAddresses"], json!(["SMTP:info@contoso.nl", "smtp:sales@contoso.nl"]));
    assert_eq!(found[0]["accountEnabled"], false);
    rig.get("/users?$search=\"displayName:info\"").await.refused(400, "Request_UnsupportedQuery");
    let eventual =
        rig.request("GET", "/users?$search=\"displayName:info\"&$count=true").header("ConsistencyLevel", "eventual");
    assert_eq!(send(eventual).await.json()["@odata.count"], 1);

    assert_eq!(rig.get("/users/info@contoso.nl?$select=id").await.json()["id"], shared.id());
    rig.get("/users/nobody@contoso.nl").await.refused(404, "Request_ResourceNotFound");
    let purpose = rig.get(&format!("/users/{}/mailboxSettings/userPurpose", shared.id())).await;
    assert_eq!(purpose.json()["value"], "shared");
    let settings = rig.get(&format!("/users/{}/mailboxSettings?$select=userPurpose", shared.id())).await;
    assert_eq!(settings.json()["userPurpose"], "shared");
    assert!(settings.json()["timeZone"].is_null());
}

// Folders --------------------------------------------------------------------------------------------

#[tokio::test]
async fn folders_are_named_in_the_mailboxs_language() {
    let rig = Rig::new().await;
    let dutch = rig.fake.mailbox("nl@contoso.nl").language(Language::Dutch).create();
    dutch.create_folder("Inbox/Verwerkt");
    let path = format!("/users/{}/mailFolders", dutch.id());
    let names: Vec<String> = rig
        .get(&format!("{path}?$top=50"))
        .await
        .values()
        .iter()
        .map(|folder| folder["displayName"].as_str().unwrap().to_owned())
        .collect();
    assert!(names.contains(&"Postvak IN".to_owned()) && !names.contains(&"Inbox".to_owned()), "{names:?}");
    let inbox = rig.get(&format!("{path}/inbox")).await.json();
    assert_eq!((inbox["displayName"].as_str(), inbox["childFolderCount"].as_u64()), (Some("Postvak IN"), Some(1)));
    assert_eq!(rig.get(&format!("{path}('Inbox')")).await.json()["id"], inbox["id"]);
    let children = rig.get(&format!("{path}/inbox/childFolders")).await.values();
    assert_eq!(children[0]["displayName"], "Verwerkt");
    assert_eq!(children[0]["parentFolderId"], inbox["id"]);
    let filtered = rig.get(&format!("{path}/inbox/childFolders?$filter=displayName eq 'verwerkt'")).await;
    assert_eq!(filtered.values().len(), 1);
    rig.get(&format!("{path}/clutter")).await.refused(404, "ErrorItemNotFound");
    assert_eq!(rig.get(&format!("{path}/msgfolderroot")).await.status, 200);
}

#[tokio::test]
async fn a_folder_that_exists_is_refused_with_409_or_400() {
    let rig = Rig::new().await;
    let path = rig.at("mailFolders/inbox/childFolders");
    let made = rig.post(&path, json!({"displayName": "Processed"})).await;
    assert_eq!(made.status, 201);
    assert_eq!(made.json()["displayName"], "Processed");
    rig.post(&path, json!({"displayName": "PROCESSED"})).await.refused(409, "ErrorFolderExists");
    rig.fake.configure(|settings| settings.folder_exists_status = 400);
    rig.post(&path, json!({"displayName": "Processed"})).await.refused(400, "ErrorFolderExists");
    rig.post(&path, json!({"name": "x"})).await.refused(400, "BadRequest");
    assert_eq!(rig.mailbox.folder_id("Inbox/Processed").as_deref(), made.json()["id"].as_str());
}

#[tokio::test]
async fn a_search_folder_stands_in_the_list_and_is_no_target() {
    let rig = Rig::new().await;
    let id = rig.deliver(2).remove(0);
    let search = rig.mailbox.create_search_folder("Ongelezen", &["Inbox"]);
    let found = rig.mail("mailFolders?$top=50").await.values();
    let folder = found.iter().find(|folder| folder["displayName"] == "Ongelezen").unwrap();
    assert_eq!(folder["@odata.type"], "#microsoft.graph.mailSearchFolder");
    assert_eq!(folder["sourceFolderIds"], json!([rig.mailbox.folder_id("Inbox").unwrap()]));
    assert_eq!(rig.mail(&format!("mailFolders/{search}/messages")).await.values().len(), 2);
    rig.mailbox.set_read(&id, true);
    assert_eq!(rig.mail(&format!("mailFolders/{search}/messages")).await.values().len(), 1);
    rig.move_to(&id, &search).await.refused(400, "ErrorInvalidOperation");
}

#[tokio::test]
async fn a_target_that_is_gone_looks_like_a_message_that_is_gone() {
    let rig = Rig::new().await;
    let id = rig.deliver(1).remove(0);
    let target = rig.mailbox.create_folder("Inbox/Processed");
    rig.mailbox.remove_folder("Inbox/Processed");
    rig.move_to(&id, &target).await.refused(404, "ErrorItemNotFound");
    rig.fake.configure(|settings| settings.missing_folder_code = "ErrorFolderNotFound".into());
    rig.move_to(&id, &target).await.refused(404, "ErrorFolderNotFound");
    assert_eq!(rig.mail(&format!("messages/{id}?$select=parentFolderId")).await.status, 200);
}

// Writes ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn writes_need_their_content_type_and_known_members() {
    let rig = Rig::new().await;
    let id = rig.deliver(1).remove(0);
    let path = rig.at(&format!("messages/{id}/move"));
    let body = json!({"destinationId": "archive"}).to_string();
    send(rig.request("POST", &path).body(body.clone())).await.refused(400, "BadRequest");
    let wrong = rig.request("POST", &path).header("Content-Type", "text/plain").body(body);
    send(wrong).await.refused(400, "BadRequest");
    rig.post(&path, json!({"destination": "archive"})).await.refused(400, "BadRequest");
    rig.post(&path, json!({})).await.refused(400, "ErrorInvalidParameter");
    let broken = rig.request("POST", &path).header("Content-Type", "application/json").body("{");
    send(broken).await.refused(400, "BadRequest");
    rig.get(&path).await.refused(405, "Request_BadRequest");
    assert_eq!(rig.mailbox.count("inbox"), 1);
}

#[tokio::test]
async fn a_message_can_be_marked_but_not_rewritten() {
    let rig = Rig::new().await;
    let id = rig.deliver(1).remove(0);
    let path = rig.at(&format!("messages/{id}"));
    let marked = send(rig.request("PATCH", &path).json(&json!({"isRead": true, "categories": ["done"]}))).await;
    assert_eq!((marked.status, &marked.json()["isRead"]), (200, &json!(true)));
    assert!(rig.mailbox.messages("inbox")[0].is_read);
    let rewritten = send(rig.request("PATCH", &path).json(&json!({"subject": "x"}))).await;
    rewritten.refused(400, "ErrorInvalidPropertySet");
    let unread = rig.mail("mailFolders/inbox").await.json();
    assert_eq!(unread["unreadItemCount"], 0);
    let copy = rig.post(&rig.at(&format!("messages/{id}/copy")), json!({"destinationId": "archive"})).await;
    assert_eq!(copy.status, 201);
    assert_eq!((rig.mailbox.count("inbox"), rig.mailbox.count("archive")), (1, 1));
    assert_eq!(send(rig.request("DELETE", &path)).await.status, 204);
    assert_eq!((rig.mailbox.count("inbox"), rig.mailbox.count("deleteditems")), (0, 1));
}

// Attachments ----------------------------------------------------------------------------------------

#[tokio::test]
async fn attachments_of_every_kind() {
    let rig = Rig::new().await;
    let id = rig.mailbox.deliver("inbox", with_file("x", "../x", b"content"));
    rig.mailbox.attach(&id, Attached::file(None, "application/octet-stream", vec![1, 2, 3]));
    rig.mailbox.attach(&id, Attached::file(Some("../x"), "text/plain", "again"));
    rig.mailbox.attach(&id, Attached::reference("cloud.docx", "https://contoso.sharepoint.com/x"));
    rig.mailbox.attach(&id, Attached::event("Meeting", "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"));
    rig.mailbox.attach(&id, Attached::contact("Jan", "BEGIN:VCARD\r\nEND:VCARD\r\n"));
    let list = rig.mail(&format!("messages/{id}/attachments")).await.values();
    let types: Vec<&str> = list.iter().map(|a| a["@odata.type"].as_str().unwrap()).collect();
    let file = "#microsoft.graph.fileAttachment";
    let item = "#microsoft.graph.itemAttachment";
    assert_eq!(types, [file, file, file, "#microsoft.graph.referenceAttachment", item, item]);
    assert_eq!(list[0]["name"], list[2]["name"]);
    assert!(list[1]["name"].is_null());
    assert!(list[0]["size"].as_u64().unwrap() > 7, "the size is not that of the content");
    let value = |at: usize| format!("messages/{id}/attachments/{}/$value", list[at]["id"].as_str().unwrap());
    let raw = rig.mail(&value(0)).await;
    assert_eq!((raw.body.as_slice(), raw.header("content-type")), (&b"content"[..], Some("application/pdf")));
    rig.mail(&value(3)).await.refused(405, "ErrorInvalidRequest");
    assert!(rig.mail(&value(4)).await.body.starts_with(b"BEGIN:VCALENDAR"));
    assert!(rig.mail(&value(5)).await.body.starts_with(b"BEGIN:VCARD"));
}

#[tokio::test]
async fn large_contents_are_missing_in_lists_only() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.content_bytes_limit = 1000);
    let id = rig.mailbox.deliver("inbox", with_file("x", "small", &[1; 1000]));
    rig.mailbox.attach(&id, Attached::file(Some("large"), "application/pdf", vec![2; 1001]));
    let listed = rig.mail(&format!("messages/{id}/attachments")).await.values();
    let expanded = rig.mail("mailFolders/inbox/messages?$expand=attachments").await.values();
    for list in [json!(listed), expanded[0]["attachments"].clone()] {
        assert!(list[0]["contentBytes"].is_string() && list[1]["contentBytes"].is_null());
        assert!(!list[1].as_object().unwrap().contains_key("contentBytes"));
    }
    let large = listed[1]["id"].as_str().unwrap();
    let one = rig.mail(&format!("messages/{id}/attachments/{large}")).await.json();
    assert!(one["contentBytes"].is_string());
    assert_eq!(rig.mail(&format!("messages/{id}/attachments/{large}/$value")).await.body, vec![2; 1001]);
    // The id of the attachment goes with the id of the message.
    let mutable = rig.mail("mailFolders/inbox/messages?$select=id").await.ids().remove(0);
    assert_eq!(rig.move_to(&mutable, "archive").await.status, 201);
    let old = expanded[0]["attachments"][0]["id"].as_str().unwrap();
    rig.mail(&format!("messages/{id}/attachments/{old}")).await.refused(404, "ErrorItemNotFound");
}

#[tokio::test]
async fn inline_only_is_no_attachment() {
    let rig = Rig::new().await;
    let id = rig.mailbox.deliver(
        "inbox",
        "From: a@x.example\r\nSubject: logo\r\nMIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n<p><img src=\"cid:1@x\"></p>\r\n--b\r\nContent-Type: image/png; name=logo.png\r\nContent-ID: <1@x>\r\nContent-Disposition: inline\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==\r\n--b--\r\n",
    );
    let message = rig.mail(&format!("messages/{id}")).await.json();
    assert_eq!(message["hasAttachments"], false);
    let attachment = rig.mail(&format!("messages/{id}/attachments")).await.values().remove(0);
    assert_eq!((&attachment["isInline"], &attachment["contentId"]), (&json!(true), &json!("1@x")));
    assert_eq!(attachment["contentBytes"], "iVBORw==");
}

#[tokio::test]
async fn an_attached_message_is_made_anew() {
    let rig = Rig::new().await;
    let inner = "From: b@x.example\r\nSubject: inner   one\r\nX-Odd:  kept\r\n\r\ntext\r\n";
    let outer = format!(
        "From: a@x.example\r\nSubject: outer\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nsee\r\n--b\r\nContent-Type: message/rfc822\r\nContent-Disposition: attachment; filename=\"x.eml\"\r\n\r\n{inner}\r\n--b--\r\n"
    );
    let id = rig.mailbox.deliver("inbox", outer.clone());
    let attachment = rig.mail(&format!("messages/{id}/attachments")).await.values().remove(0);
    assert_eq!((&attachment["name"], &attachment["contentType"]), (&json!("inner one"), &Value::Null));
    let path = format!("messages/{id}/attachments/{}", attachment["id"].as_str().unwrap());
    let value = rig.mail(&format!("{path}/$value")).await;
    let text = String::from_utf8(value.body).unwrap();
    assert!(text.contains("Subject: inner one\r\n") && text.contains("X-Odd: kept\r\n"), "{text}");
    let expanded = rig.mail(&format!("{path}?$expand=microsoft.graph.itemattachment/item")).await.json();
    assert_eq!((&expanded["item"]["subject"], &expanded["item"]["id"]), (&json!("inner one"), &json!("")));

    rig.fake.configure(|settings| settings.rendering.rerender_attached = false);
    let id = rig.mailbox.deliver("inbox", outer);
    let attachment = rig.mail(&format!("messages/{id}/attachments")).await.ids().remove(0);
    let value = rig.mail(&format!("messages/{id}/attachments/{attachment}/$value")).await;
    assert_eq!(String::from_utf8(value.body).unwrap().trim_end(), inner.trim_end());
}

// What Exchange makes of a message -------------------------------------------------------------------

#[tokio::test]
async fn mime_is_rendered_as_exchange_does() {
    let rig = Rig::new().await;
    rig.fake.mailbox("jan@contoso.nl").display_name("Jan de Vries").alias("j.devries@contoso.nl").create();
    let received: jiff::Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
    let source = "From: \"J.\" <J.DeVries@Contoso.nl>\r\nTo: Facturen <facturen@contoso.nl>\r\nSubject: Factuur \t  12\r\n   van maart\r\nDate: yesterday\r\nReceived: one\r\nReceived: two\r\nContent-Type: text/html\r\n\r\n<html><head></head><body><script>x()</script><p onclick=\"y()\">hi</p></body></html>\r\n";
    let id = rig.mailbox.deliver_at("inbox", source, received);
    let message = rig.mail(&format!("messages/{id}")).await.json();
    assert_eq!(message["subject"], "Factuur 12 van maart");
    assert_eq!(message["from"]["emailAddress"], json!({"name": "Jan de Vries", "address": "jan@contoso.nl"}));
    assert_eq!(message["sentDateTime"], "2026-03-01T10:00:00Z");
    let made_up = message["internetMessageId"].as_str().unwrap().to_owned();
    assert!(made_up.starts_with('<') && made_up.ends_with("exchangelabs.com>"), "{made_up}");
    let body = message["body"]["content"].as_str().unwrap();
    assert!(!body.contains("script") && !body.contains("onclick") && body.contains("hi"), "{body}");
    let unsafe_html =
        rig.request("GET", &rig.at(&format!("messages/{id}"))).header("Prefer", "outlook.allow-unsafe-html");
    assert!(send(unsafe_html).await.json()["body"]["content"].as_str().unwrap().contains("script"));
    let headers = rig.mail(&format!("messages/{id}?$select=internetMessageHeaders")).await.json();
    let received: Vec<&Value> = headers["internetMessageHeaders"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|header| header["name"] == "Received")
        .collect();
    assert_eq!(received.len(), 2, "repeated headers stay repeated");
    let value = rig.mail(&format!("messages/{id}/$value")).await;
    assert_eq!(value.header("content-type"), Some("text/plain"));
    let value = String::from_utf8(value.body).unwrap();
    assert!(value.contains("Subject: Factuur 12 van maart\r\n") && value.contains(&made_up), "{value}");
    assert_ne!(value, source);

    rig.fake.configure(|settings| {
        let rendering = &mut settings.rendering;
        rendering.rewrite_sender = false;
        rendering.collapse_subject = false;
        rendering.substitute_message_id = false;
        rendering.substitute_date = false;
        rendering.sanitise_html = false;
        rendering.rerender_message = false;
    });
    let id = rig.mailbox.deliver("inbox", source);
    let message = rig.mail(&format!("messages/{id}")).await.json();
    assert_eq!(message["from"]["emailAddress"]["address"], "J.DeVries@Contoso.nl");
    assert!(message["internetMessageId"].is_null() && message["sentDateTime"].is_null());
    assert!(message["body"]["content"].as_str().unwrap().contains("script"));
    assert_eq!(rig.mail(&format!("messages/{id}/$value")).await.body, source.as_bytes());
}

#[tokio::test]
async fn winmail_is_opened() {
    let mut tnef = 0x223E_9F78_u32.to_le_bytes().to_vec();
    tnef.extend([1, 0]);
    for (id, data) in [(0x9002_u16, &[0_u8; 14][..]), (0x8010, b"factuur.pdf\0"), (0x800F, b"%PDF-1")] {
        tnef.push(2);
        tnef.extend(id.to_le_bytes());
        tnef.extend([0, 0]);
        tnef.extend((data.len() as u32).to_le_bytes());
        tnef.extend(data);
        let sum = data.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
        tnef.extend(sum.to_le_bytes());
    }
    let rig = Rig::new().await;
    let mime = with_file("x", "winmail.dat", &tnef);
    let id = rig.mailbox.deliver("inbox", mime.clone());
    let opened = rig.mail(&format!("messages/{id}/attachments")).await.values();
    assert_eq!((opened.len(), &opened[0]["name"]), (1, &json!("factuur.pdf")));
    assert_eq!(opened[0]["contentBytes"], base64_simd::STANDARD.encode_to_string("%PDF-1"));
    rig.fake.configure(|settings| settings.rendering.open_tnef = false);
    let id = rig.mailbox.deliver("inbox", mime);
    assert_eq!(rig.mail(&format!("messages/{id}/attachments")).await.values()[0]["name"], "winmail.dat");
}

// Batches --------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_batch_answers_each_part_in_any_order() {
    let rig = Rig::new().await;
    let ids = rig.deliver(6);
    let parts: Vec<Value> = ids
        .iter()
        .enumerate()
        .map(|(number, id)| {
            json!({
                "id": number.to_string(),
                "method": "POST",
                "url": rig.at(&format!("messages/{id}/move")),
                "headers": {"Content-Type": "application/json", "Prefer": "IdType=\"ImmutableId\""},
                "body": {"destinationId": if number == 5 { "clutter" } else { "archive" }},
            })
        })
        .collect();
    let before = rig.fake.counters();
    let answer = rig.batch(json!(parts)).await;
    assert_eq!(answer.status, 200);
    let responses = answer.json()["responses"].as_array().cloned().unwrap();
    assert_eq!(responses.len(), 6);
    let order: Vec<&str> = responses.iter().map(|response| response["id"].as_str().unwrap()).collect();
    assert_ne!(order, ["0", "1", "2", "3", "4", "5"]);
    for response in &responses {
        let number: usize = response["id"].as_str().unwrap().parse().unwrap();
        if number == 5 {
            assert_eq!(
                (&response["status"], &response["body"]["error"]["code"]),
                (&json!(404), &json!("ErrorItemNotFound"))
            );
        } else {
            assert_eq!((&response["status"], &response["body"]["id"]), (&json!(201), &json!(ids[number])));
        }
    }
    let after = rig.fake.counters();
    assert_eq!(after.graph_requests - before.graph_requests, 6, "each part counts");
    assert_eq!(after.round_trips - before.round_trips, 1);
    assert_eq!((after.of(Route::Move), after.of(Route::Batch)), (6, 1));
    assert_eq!(after.peak_concurrency[rig.mailbox.address()], 4);
    assert_eq!(rig.mailbox.count("archive"), 5);
}

#[tokio::test]
async fn a_malformed_batch_is_refused_whole() {
    let rig = Rig::new().await;
    let part = |id: &str| json!({"id": id, "method": "GET", "url": rig.at("mailFolders")});
    let many: Vec<Value> = (0..21).map(|number| part(&number.to_string())).collect();
    rig.batch(json!(many)).await.refused(400, "BadRequest");
    rig.batch(json!(many[..20])).await.values_of_batch(20);
    rig.batch(json!([])).await.refused(400, "BadRequest");
    rig.batch(json!([part("a"), part("A")])).await.refused(400, "BadRequest");
    rig.batch(json!([{"id": "1", "method": "POST", "url": "/$batch"}])).await.refused(400, "BadRequest");
    let absolute = format!("{}/v1.0/users", rig.fake.graph_url());
    rig.batch(json!([{"id": "1", "method": "GET", "url": absolute}])).await.refused(400, "BadRequest");
    rig.batch(json!([{"id": "1", "url": "/users"}])).await.refused(400, "BadRequest");
    let untyped = json!([{"id": "1", "method": "POST", "url": rig.at("mailFolders"), "body": {"displayName": "x"}}]);
    rig.batch(untyped).await.refused(400, "BadRequest");
    let dangling = json!([{"id": "1", "method": "GET", "url": "/users", "dependsOn": ["9"]}]);
    rig.batch(dangling).await.refused(400, "BadRequest");
    let plain = rig.request("POST", "/$batch").body("{\"requests\":[]}");
    send(plain).await.refused(400, "BadRequest");
}

impl Answer {
    /// The status of each part, in order of ids that are numbers.
    fn values_of_batch(&self, count: usize) -> Vec<u64> {
        assert_eq!(self.status, 200, "{}", self.json());
        let mut responses = self.json()["responses"].as_array().cloned().unwrap();
        assert_eq!(responses.len(), count);
        responses.sort_by_key(|response| response["id"].as_str().unwrap().parse::<u64>().unwrap());
        responses.iter().map(|response| response["status"].as_u64().unwrap()).collect()
    }
}

#[tokio::test]
async fn parts_can_depend_on_others_and_carry_binaries() {
    let rig = Rig::new().await;
    let id = rig.mailbox.deliver("inbox", with_file("x", "a.pdf", b"binary"));
    let attachment = rig.mail(&format!("messages/{id}/attachments")).await.ids().remove(0);
    let answer = rig
        .batch(json!([
            {"id": "1", "method": "GET", "url": rig.at("messages/nonsense")},
            {"id": "2", "method": "GET", "url": rig.at("mailFolders"), "dependsOn": ["1"]},
            {"id": "3", "method": "GET", "url": rig.at(&format!("messages/{id}/attachments/{attachment}/$value"))},
        ]))
        .await;
    assert_eq!(answer.values_of_batch(3), [400, 424, 200]);
    let responses = answer.json()["responses"].as_array().cloned().unwrap();
    let binary = responses.iter().find(|response| response["id"] == "3").unwrap();
    assert_eq!(binary["body"], base64_simd::STANDARD.encode_to_string("binary"));
    assert_eq!(rig.fake.counters().peak_concurrency[rig.mailbox.address()], 1);
}

#[tokio::test]
async fn a_part_is_throttled_on_its_own() {
    let rig = Rig::new().await;
    rig.fake.fault(Fault::too_many_requests(RetryAfter::decimal()).on(Route::ListFolders).in_batch().nth(2));
    let part = |id: u32| json!({"id": id.to_string(), "method": "GET", "url": rig.at("mailFolders")});
    let answer = rig.batch(json!([part(0), part(1), part(2)])).await;
    assert_eq!(answer.values_of_batch(3), [200, 429, 200]);
    let responses = answer.json()["responses"].as_array().cloned().unwrap();
    let throttled = responses.iter().find(|response| response["id"] == "1").unwrap();
    let headers = throttled["headers"].as_object().unwrap();
    let value = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after")).unwrap().1;
    assert_eq!(value, "2.128");
}

// Limits ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_fifth_request_at_once_is_refused() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.service_time = Duration::from_millis(300));
    let answers = futures::future::join_all((0..6).map(|_| rig.mail("mailFolders"))).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert_eq!(refused.len(), 2);
    refused[0].refused(429, "ApplicationThrottled");
    assert_eq!(refused[0].header("retry-after"), Some("1"));
    let counters = rig.fake.counters();
    assert_eq!((counters.throttled, counters.peak_concurrency[rig.mailbox.address()]), (2, 4));
    // Other mailboxes and other applications have limits of their own.
    let other = rig.fake.mailbox("inkoop@contoso.nl").create();
    let path = format!("/users/{}/mailFolders", other.id());
    let (four, one) =
        futures::join!(futures::future::join_all((0..4).map(|_| rig.mail("mailFolders"))), rig.get(&path));
    assert!(four.iter().all(|answer| answer.status == 200) && one.status == 200);
}

#[tokio::test]
async fn two_batches_at_once_are_too_many() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.service_time = Duration::from_millis(100));
    let parts: Vec<Value> =
        (0..8).map(|id| json!({"id": id.to_string(), "method": "GET", "url": rig.at("mailFolders")})).collect();
    let start = Instant::now();
    let (one, other) = futures::join!(rig.batch(json!(parts)), rig.batch(json!(parts)));
    assert!(start.elapsed() >= Duration::from_millis(200), "eight parts take two rounds of four");
    let mut ok = [one, other].map(|answer| answer.values_of_batch(8).iter().filter(|status| **status == 200).count());
    ok.sort_unstable();
    assert_eq!(ok, [0, 8]);
    assert_eq!(rig.fake.counters().throttled, 8);
}

#[tokio::test]
async fn one_after_the_other_is_never_refused() {
    let rig = Rig::new().await;
    let workers = (0..4).map(|_| async {
        for _ in 0..50 {
            assert_eq!(rig.mail("mailFolders?$top=1").await.status, 200);
        }
    });
    futures::future::join_all(workers).await;
    assert_eq!(rig.fake.counters().throttled, 0);
}

#[tokio::test]
async fn ten_minutes_have_room_for_so_many_requests() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.requests_per_ten_minutes = 3);
    for status in [200, 200, 200, 429] {
        assert_eq!(rig.mail("mailFolders").await.status, status);
    }
    rig.fake.advance(Duration::from_secs(601));
    assert_eq!(rig.mail("mailFolders").await.status, 200);
}

// Faults ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn throttling_lasts_and_says_for_how_long() {
    let rig = Rig::new().await;
    let now: jiff::Timestamp = "2026-03-01T10:00:00Z".parse().unwrap();
    let mut rig = rig;
    rig.fake.freeze_time(now);
    rig.token = rig.fresh_token().await;
    let throttle =
        rig.fake.fault(Fault::throttle(Duration::from_secs(40), RetryAfter::decimal()).on(Route::ListMessages));
    for _ in 0..2 {
        let refused = rig.mail("mailFolders/inbox/messages").await;
        refused.refused(429, "ApplicationThrottled");
        assert_eq!(refused.header("retry-after"), Some("2.128"));
    }
    assert_eq!(rig.mail("mailFolders").await.status, 200);
    rig.fake.advance(Duration::from_secs(40));
    assert_eq!(rig.mail("mailFolders/inbox/messages").await.status, 200);
    assert_eq!(throttle.hits(), 2);
    rig.fake.fault(Fault::too_many_requests(RetryAfter::Missing).times(1));
    assert_eq!(rig.mail("mailFolders").await.header("retry-after"), None);
    rig.fake.fault(Fault::too_many_requests(RetryAfter::DateIn(Duration::from_secs(20))).times(1));
    let dated = rig.mail("mailFolders").await;
    assert_eq!(dated.header("retry-after"), Some("Sun, 01 Mar 2026 10:01:00 GMT"));
    assert_eq!(rig.fake.counters().throttled, 0, "scripted refusals are not the client's doing");
}

#[tokio::test]
async fn a_move_can_time_out_after_it_was_performed() {
    let rig = Rig::new().await;
    let ids = rig.deliver(3);
    let lost = rig.fake.fault(Fault::after_performing(504).on(Route::Move).nth(2));
    assert_eq!(rig.move_to(&ids[0], "archive").await.status, 201);
    rig.move_to(&ids[1], "archive").await.refused(504, "UnknownError");
    assert_eq!(rig.mailbox.folder_of(&ids[1]).as_deref(), Some("Archive"));
    assert_eq!(rig.move_to(&ids[2], "archive").await.status, 201);
    assert_eq!(lost.hits(), 1);
    rig.fake.fault(Fault::unavailable(503).on(Route::Move));
    rig.move_to(&ids[2], "inbox").await.refused(503, "UnknownError");
    assert_eq!(rig.mailbox.folder_of(&ids[2]).as_deref(), Some("Archive"));
}

#[tokio::test]
async fn someone_else_is_faster() {
    let rig = Rig::new().await;
    let immutable = rig.deliver(2);
    let ids = rig.mail("mailFolders/inbox/messages?$orderby=receivedDateTime").await.ids();
    rig.fake.fault(Fault::moved_first("Inbox/Elsewhere").on(Route::Move).nth(1));
    rig.fake.fault(Fault::deleted_first().on(Route::Move));
    rig.move_to(&ids[0], "archive").await.refused(404, "ErrorItemNotFound");
    assert_eq!(rig.mailbox.folder_of(&immutable[0]).as_deref(), Some("Inbox/Elsewhere"));
    rig.move_to(&immutable[1], "archive").await.refused(404, "ErrorItemNotFound");
    assert_eq!(rig.mailbox.folder_of(&immutable[1]), None);
}

#[tokio::test]
async fn a_token_can_die_on_the_third_page() {
    let mut rig = Rig::new().await;
    rig.deliver(30);
    rig.fake.fault(Fault::token_expired().on(Route::ListMessages).nth(3));
    let first = rig.mail("mailFolders/inbox/messages").await;
    let second = rig.get(&first.next().unwrap()).await;
    let third = second.next().unwrap();
    rig.get(&third).await.refused(401, "InvalidAuthenticationToken");
    rig.get(&third).await.refused(401, "InvalidAuthenticationToken");
    rig.token = rig.fresh_token().await;
    assert_eq!(rig.get(&third).await.values().len(), 10);
}

#[tokio::test]
async fn claims_are_challenged() {
    let mut rig = Rig::new().await;
    let claims = r#"{"access_token":{"nbf":{"essential":true,"value":"1604106651"}}}"#;
    rig.fake.fault(Fault::claims_challenge(claims).times(1));
    let refused = rig.mail("mailFolders").await;
    refused.refused(401, "InvalidAuthenticationToken");
    let header = refused.header("www-authenticate").unwrap();
    let encoded = base64_simd::STANDARD.encode_to_string(claims);
    assert!(header.contains("error=\"insufficient_claims\"") && header.contains(&encoded), "{header}");
    rig.mail("mailFolders").await.refused(401, "InvalidAuthenticationToken");
    rig.token = rig.fresh_token().await;
    assert_eq!(rig.mail("mailFolders").await.status, 200);
}

#[tokio::test]
async fn answers_can_be_spoilt_on_the_wire() {
    let rig = Rig::new().await;
    let ids = rig.deliver(30);
    let list = rig.at("mailFolders/inbox/messages?$top=30");
    let once = |fault: Fault| {
        rig.fake.clear_faults();
        rig.fake.fault(fault.times(1));
    };
    once(Fault::html(502));
    let html = rig.get(&list).await;
    assert_eq!((html.status, html.header("content-type")), (502, Some("text/html; charset=us-ascii")));
    once(Fault::html(200));
    assert!(rig.get(&list).await.body.starts_with(b"<!DOCTYPE html>"));
    once(Fault::cut_json());
    let cut = rig.get(&list).await;
    assert_eq!(cut.status, 200);
    assert!(serde_json::from_slice::<Value>(&cut.body).is_err());
    for fault in [Fault::cut_in_body(), Fault::reset_in_body()] {
        once(fault);
        let response = rig.request("GET", &list).send().await;
        // A reset may even overtake the head.
        if let Ok(response) = response {
            assert_eq!(response.status(), 200);
            assert!(response.bytes().await.is_err(), "the body is not whole");
        }
    }
    once(Fault::reset_before_answer().on(Route::Move));
    let path = rig.at(&format!("messages/{}/move", ids[0]));
    assert!(rig.request("POST", &path).json(&json!({"destinationId": "archive"})).send().await.is_err());
    assert_eq!(rig.mailbox.folder_of(&ids[0]).as_deref(), Some("Archive"));
    once(Fault::trickle(2000, Duration::from_millis(5)));
    let start = Instant::now();
    let whole = rig.get(&list).await;
    assert_eq!(whole.values().len(), 29);
    assert!(start.elapsed() >= Duration::from_millis(5 * (whole.body.len() as u64 / 2000)));
    for fault in [Fault::stall(), Fault::stall_in_body()] {
        once(fault);
        let request = rig.request("GET", &list).timeout(Duration::from_millis(200));
        let failed = match request.send().await {
            Ok(response) => response.bytes().await.is_err(),
            Err(_) => true,
        };
        assert!(failed, "no whole answer comes");
    }
    assert_eq!(rig.get(&list).await.values().len(), 29);
    assert!(rig.fake.idle(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn chaos_follows_its_seed() {
    async fn struck(seed: u64) -> (Vec<u16>, u64) {
        let rig = Rig::new().await;
        let kinds = [ChaosKind::Unavailable, ChaosKind::Throttled, ChaosKind::TimeoutAfterPerforming, ChaosKind::Html];
        rig.fake.chaos(Chaos::new(30.0, seed).kinds(&kinds));
        let mut statuses = Vec::new();
        for _ in 0..60 {
            statuses.push(rig.mail("mailFolders?$top=1").await.status);
        }
        let sum = rig.fake.chaos_struck().values().sum();
        (statuses, sum)
    }
    let (one, count) = struck(1).await;
    assert_eq!(struck(1).await.0, one);
    assert_ne!(struck(2).await.0, one);
    assert!((8..=30).contains(&count), "{count} of 60 at 30 %");
    for status in [200, 429, 502, 503, 504] {
        assert!(one.contains(&status), "{status} in {one:?}");
    }
}

// The token endpoint ---------------------------------------------------------------------------------

#[tokio::test]
async fn the_token_endpoint_names_what_is_wrong() {
    let rig = Rig::new().await;
    let client_id = rig.app.client_id();
    let tenant = rig.fake.tenant();
    let scope = "https://graph.microsoft.com/.default";
    let good = [
        ("grant_type", "client_credentials"),
        ("client_id", client_id.as_str()),
        ("client_secret", "right"),
        ("scope", scope),
    ];
    let with = |name: &'static str, value: &'static str| {
        let mut form = good.to_vec();
        form.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            form.push((name, value));
        }
        form
    };
    for (form, status, error, code) in [
        (with("client_secret", "wrong"), 401, "invalid_client", 7000215),
        (with("client_secret", ""), 401, "invalid_client", 7000218),
        (with("client_id", "00000000-0000-0000-0000-000000000000"), 400, "unauthorized_client", 700016),
        (with("client_id", ""), 400, "invalid_request", 900144),
        (with("grant_type", ""), 400, "invalid_request", 900144),
        (with("grant_type", "password"), 400, "unsupported_grant_type", 70003),
        (with("scope", ""), 400, "invalid_request", 900144),
        (with("scope", "https://graph.microsoft.com/Mail.Read"), 400, "invalid_scope", 1002012),
        (with("scope", "https%3A%2F%2Fgraph.microsoft.com%2F.default"), 400, "invalid_scope", 1002012),
        (with("scope", "https://graph.microsoft.example/.default"), 400, "invalid_resource", 500011),
        (
            with("scope", "https://graph.microsoft.com/.default https://outlook.office.com/.default"),
            400,
            "invalid_request",
            28000,
        ),
    ] {
        rig.token_request(&tenant, &form).await.aadsts(status, error, code);
    }
    for (tenant, code) in [
        ("common", 9001023),
        ("consumers", 9001023),
        ("11111111-1111-1111-1111-111111111111", 90002),
        ("elsewhere.example", 90002),
        ("contoso", 900023),
    ] {
        rig.token_request(tenant, &good).await.aadsts(400, "invalid_request", code);
    }
    let answer = rig.token_request("Contoso.nl", &good).await.json();
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(3599)));
    assert!(answer["refresh_token"].is_null());

    let url = format!("{}/{tenant}/oauth2/v2.0/token", rig.fake.login_url());
    send(rig.http.get(&url)).await.aadsts(400, "invalid_request", 900561);
    send(rig.http.post(&url).json(&json!({"grant_type": "client_credentials"}))).await.aadsts(
        400,
        "invalid_request",
        900144,
    );
    let doubled = [good.to_vec(), vec![("scope", scope)]].concat();
    rig.token_request(&tenant, &doubled).await.aadsts(400, "invalid_request", 9002313);
    let mut anonymous = good.to_vec();
    anonymous.retain(|(name, _)| !["client_id", "client_secret"].contains(name));
    let basic = rig.http.post(&url).basic_auth(&client_id, Some("right")).form(&anonymous);
    assert_eq!(send(basic).await.status, 200);

    rig.app.set_disabled(true);
    rig.token_request(&tenant, &good).await.aadsts(400, "unauthorized_client", 7000112);
}

#[tokio::test]
async fn secrets_expire_and_are_replaced() {
    let rig = Rig::new().await;
    let end = rig.fake.now() + jiff::SignedDuration::from_secs(60);
    let app = rig.fake.app("x").secret_until("old", end).create();
    let client_id = app.client_id();
    let form = |secret: &'static str| {
        vec![
            ("grant_type", "client_credentials"),
            ("client_id", client_id.as_str()),
            ("client_secret", secret),
            ("scope", "https://graph.microsoft.com/.default"),
        ]
    };
    let tenant = rig.fake.tenant();
    assert_eq!(rig.token_request(&tenant, &form("old")).await.status, 200);
    rig.fake.advance(Duration::from_secs(61));
    rig.token_request(&tenant, &form("old")).await.aadsts(401, "invalid_client", 7000222);
    app.replace_secret("new");
    assert_eq!(rig.token_request(&tenant, &form("new")).await.status, 200);
    assert!(!format!("{app:?} {:?} {:?}", rig.fake, rig.mailbox).contains("new"));
}

#[tokio::test]
async fn the_token_endpoint_can_fail_too() {
    let rig = Rig::new().await;
    let form = [("grant_type", "client_credentials")];
    rig.fake.fault(Fault::unavailable(503).on(Route::Token).times(1));
    rig.token_request("contoso.nl", &form).await.aadsts(503, "temporarily_unavailable", 90033);
    rig.fake.fault(Fault::entra(400, "invalid_grant", 53003, "Access has been blocked.").times(1));
    rig.token_request("contoso.nl", &form).await.aadsts(400, "invalid_grant", 53003);
    rig.fake.fault(Fault::html(502).on(Route::Token).times(1));
    assert!(rig.token_request("contoso.nl", &form).await.body.starts_with(b"<!DOCTYPE"));
    assert_eq!(rig.fake.counters().token_requests, 4);
}

fn jwt(header: Value, claims: Value) -> String {
    let part = |value: Value| base64_simd::URL_SAFE_NO_PAD.encode_to_string(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), base64_simd::URL_SAFE_NO_PAD.encode_to_string("signature"))
}

#[tokio::test]
async fn federated_assertions_match_to_the_letter() {
    let rig = Rig::new().await;
    let app = rig.fake.app("x").federated("https://issuer.example", "job", "api://AzureADTokenExchange").create();
    let now = rig.fake.now().as_second();
    let client_id = app.client_id();
    let tenant = rig.fake.tenant();
    let ask = async |subject: &str, end: i64| {
        let assertion = jwt(
            json!({"alg": "RS256", "typ": "JWT"}),
            json!({"iss": "https://issuer.example", "sub": subject, "aud": ["api://AzureADTokenExchange"], "exp": end}),
        );
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
            ("scope", "https://graph.microsoft.com/.default"),
        ];
        rig.token_request(&tenant, &form).await
    };
    assert_eq!(ask("job", now + 600).await.status, 200);
    ask("another job", now + 600).await.aadsts(401, "invalid_client", 700213);
    ask("job", now - 600).await.aadsts(401, "invalid_client", 700024);
}

#[cfg(feature = "certificate")]
#[tokio::test]
async fn certificates_are_checked() {
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use sha2::{Digest, Sha256};
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).expect("an RSA key");
    let certificate = rcgen::CertificateParams::new(vec!["x.example".into()]).unwrap().self_signed(&key).unwrap();
    let rig = Rig::new().await;
    let app = rig.fake.app("x").certificate(&certificate.pem()).create();
    let (client_id, tenant) = (app.client_id(), rig.fake.tenant());
    let now = rig.fake.now().as_second();
    let signing = EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes()).unwrap();
    let thumbprint = base64_simd::URL_SAFE_NO_PAD.encode_to_string(Sha256::digest(certificate.der()));
    let ask = async |thumbprint: &str, audience: &str, tamper: bool| {
        let mut header = Header::new(Algorithm::PS256);
        header.x5t_s256 = Some(thumbprint.to_owned());
        let claims = json!({
            "iss": client_id, "sub": client_id, "aud": audience, "jti": "1", "nbf": now, "exp": now + 300,
        });
        let mut assertion = jsonwebtoken::encode(&header, &claims, &signing).unwrap();
        if tamper {
            let at = assertion.len() - 20;
            let other = if assertion.as_bytes()[at] == b'A' { "B" } else { "A" };
            assertion.replace_range(at..=at, other);
        }
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id.as_str()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
            ("client_assertion", assertion.as_str()),
            ("scope", "https://graph.microsoft.com/.default"),
        ];
        rig.token_request(&tenant, &form).await
    };
    let audience = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
    assert_eq!(ask(&thumbprint, &audience, false).await.status, 200);
    ask(&thumbprint, &audience, true).await.aadsts(401, "invalid_client", 700027);
    ask("other", &audience, false).await.aadsts(401, "invalid_client", 700027);
    ask(&thumbprint, "https://graph.microsoft.com", false).await.aadsts(401, "invalid_client", 50012);
}

// Delta ----------------------------------------------------------------------------------------------

#[tokio::test]
async fn delta_tells_what_changed() {
    let rig = Rig::new().await;
    let ids = rig.deliver(15);
    let round = async |mut url: String| {
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let request = rig.request("GET", &url).header(IMMUTABLE.0, IMMUTABLE.1);
            let page = send(request).await;
            seen.extend(page.values());
            pages += 1;
            match page.next() {
                Some(next) => url = next,
                None => return (seen, pages, page.json()["@odata.deltaLink"].as_str().unwrap().to_owned()),
            }
        }
    };
    let (seen, pages, link) = round(rig.at("mailFolders/inbox/messages/delta")).await;
    assert_eq!((seen.len(), pages), (16, 2), "one item comes twice");
    assert_eq!(seen.iter().map(|message| message["id"].as_str().unwrap()).collect::<HashSet<_>>().len(), 15);
    let (seen, _, link) = round(link).await;
    assert!(seen.is_empty());
    rig.mailbox.move_message(&ids[3], "archive");
    rig.mailbox.set_read(&ids[4], true);
    let new = rig.mailbox.deliver("inbox", mime("new"));
    let (seen, _, link) = round(link).await;
    let mut found: Vec<(String, bool)> = seen
        .iter()
        .map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry["@removed"]["reason"] == "deleted"))
        .collect();
    found.sort();
    let mut expected = vec![(ids[3].clone(), true), (ids[4].clone(), false), (new, false)];
    expected.sort();
    assert_eq!(found, expected);
    rig.fake.forget_sync_state();
    rig.get(&link).await.refused(410, "SyncStateNotFound");
    rig.mail("mailFolders/inbox/messages/delta?$orderby=receivedDateTime asc").await.refused(400, "BadRequest");
    rig.mail("mailFolders/inbox/messages/delta?$search=\"x\"").await.refused(400, "BadRequest");
}

// Much -----------------------------------------------------------------------------------------------

#[tokio::test]
async fn much_mail_and_large_files_take_no_memory() {
    let rig = Rig::new().await;
    let start: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    rig.mailbox.generate("inbox", &GeneratedMail::new(100_000).seed(7).attachments(2, 50_000_000).received(start, 1));
    assert_eq!(rig.mailbox.count("inbox"), 100_000);
    let query = "mailFolders/inbox/messages?$top=2&$filter=receivedDateTime ge 2026-01-02T00:00:00Z&$orderby=receivedDateTime&$expand=attachments&$count=true";
    let page = rig.mail(query).await;
    assert_eq!(page.json()["@odata.count"], 100_000 - 86_400);
    let message = page.values().remove(0);
    assert_eq!(message["receivedDateTime"], "2026-01-02T00:00:00Z");
    assert!(message["attachments"][0]["contentBytes"].is_null());
    let (id, attachment) = (message["id"].as_str().unwrap(), message["attachments"][0]["id"].as_str().unwrap());
    let path = rig.at(&format!("messages/{id}/attachments/{attachment}/$value"));
    let mut response = rig.request("GET", &path).send().await.unwrap();
    assert_eq!(response.content_length(), Some(50_000_000));
    let mut digest = <sha2::Sha256 as sha2::Digest>::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        sha2::Digest::update(&mut digest, &chunk);
    }
    let stored = rig.mailbox.message(id).unwrap().attachments[0].sha256().unwrap();
    assert_eq!(<[u8; 32]>::from(sha2::Digest::finalize(digest)), stored);
}

#[tokio::test]
async fn a_whole_batch_can_get_lost() {
    let rig = Rig::new().await;
    let ids = rig.deliver(4);
    let part = |number: usize| {
        json!({
            "id": number.to_string(), "method": "POST", "url": rig.at(&format!("messages/{}/move", ids[number])),
            "headers": {"Content-Type": "application/json"}, "body": {"destinationId": "archive"},
        })
    };
    rig.fake.fault(Fault::after_performing(504).on(Route::Batch).times(1));
    rig.batch(json!([part(0)])).await.refused(504, "UnknownError");
    assert_eq!(rig.mailbox.count("archive"), 1);
    rig.fake.fault(Fault::unavailable(503).on(Route::Batch).times(1));
    rig.batch(json!([part(1)])).await.refused(503, "UnknownError");
    assert_eq!(rig.mailbox.count("archive"), 1);
    rig.fake.fault(Fault::after_performing(504).on(Route::Move).in_batch().nth(2));
    rig.fake.fault(Fault::deleted_first().on(Route::Move).in_batch().nth(2));
    let answer = rig.batch(json!([part(1), part(2), part(3)])).await;
    assert_eq!(answer.values_of_batch(3), [201, 504, 404]);
    assert_eq!(rig.mailbox.count("archive"), 3);
    let log = rig.fake.requests();
    assert_eq!(log.iter().filter(|entry| entry.route == Route::Move && entry.in_batch).count(), 4);
    assert!(log.iter().any(|entry| entry.fault.as_deref().is_some_and(|fault| fault.contains("AfterPerforming"))));
}

#[tokio::test]
async fn the_token_endpoint_says_when_to_come_back() {
    let rig = Rig::new().await;
    rig.fake.fault(Fault::too_many_requests("3".into()).on(Route::Token).times(1));
    let refused = rig.token_request("contoso.nl", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("3")));
}

#[tokio::test]
async fn a_page_of_large_files_is_written_without_being_built() {
    let rig = Rig::new().await;
    rig.fake.configure(|settings| settings.content_bytes_limit = u64::MAX);
    rig.mailbox.generate("inbox", &GeneratedMail::new(2).attachments(1, 5_000_000));
    let page = rig.mail("mailFolders/inbox/messages?$expand=attachments").await.values();
    for message in &page {
        let stored = rig.mailbox.message(message["id"].as_str().unwrap()).unwrap();
        let content = message["attachments"][0]["contentBytes"].as_str().unwrap();
        let content = base64_simd::STANDARD.decode_to_vec(content).unwrap();
        assert!(stored.attachments[0].bytes().unwrap() == content);
    }
}
