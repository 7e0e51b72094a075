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
    assert_eq!(listed.ids(), [immutable.clone()]);
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
    for filter in ["receivedDateTime ge '2026-03-01T09:02:00Z'", "isRead eq 'false'", "colour eq 'red'", "subject eq"]
    {
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
    let query = "mailFolders/inbox/messages?$select=id&$expand=singleValueExtendedProperties($filter=id eq 'LONG 0x0E08')";
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
    assert_eq!(
        text.header("preference-applied"),
        Some("IdType=\"ImmutableId\", outlook.body-content-type=\"text\"")
    );
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
    let app =
        fake.app("x").secret("right").rbac("Application Mail.ReadWrite", ["facturen@contoso.nl"]).create();
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
