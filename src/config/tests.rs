use std::time::Duration;

use super::*;
use crate::{Since, provider::memory::MemoryMailbox, setting::Value};

fn app(text: &str) -> Result<MailApp> {
    MailApp::loader().build(Some("mail.toml".into()), text, Path::new("/etc/mail"))
}

/// The whole of the documented file.
const FULL: &str = r#"
[state]
path = "state/mail-account.db"
key = { env = "MAIL_ACCOUNT_KEY" }

[registrations.contoso]
tenant = "contoso.nl"
client_id = "00000000-0000-0000-0000-000000000000"
client_secret = { env = "INVOICES_SECRET" }
client_secret_next = { file = "next.txt" }
secret_expires = "2027-11-01"
cloud = "global"
login_url = "http://127.0.0.1:8080"
graph_url = "https://graph.contoso.example"
redirect_uri = "http://localhost:8000/back"
proxy = "http://user:hunter2@proxy.contoso.example:3128"
ca_file = "ca.pem"

[accounts.invoices-basic]
provider = "imap"
host = "mail.contoso.nl"
port = 993
tls = "implicit"
ca_file = "ca.pem"
username = "facturen@contoso.nl"
password = { env = "INVOICES_PASSWORD" }
address = "Facturen@contoso.nl"

[accounts.invoices-imap-oauth]
provider = "imap"
host = "outlook.office365.com"
username = "facturen@contoso.nl"
oauth = { registration = "contoso", auth = "delegated", principal = "beheer@contoso.nl" }

[accounts.elsewhere]
provider = "imap"
host = "imap.mail.example"
username = "a@mail.example"
[accounts.elsewhere.oauth]
client_id = "any"
client_secret = "x"
auth = "delegated"
token_url = "https://mail.example/token"
authorize_url = "https://mail.example/authorize"
scopes = ["imap", "offline"]

[accounts.invoices-graph]
provider = "graph"
registration = "contoso"
auth = "app"
mailbox = "facturen@contoso.nl"
enabled = true

[accounts.by-certificate]
provider = "graph"
tenant = "https://login.microsoftonline.us/contoso.nl/oauth2/v2.0/token"
client_id = "00000000-0000-0000-0000-000000000001"
certificate = { cert_file = "app.crt", key_file = "app.key" }
auth = "delegated"
mailbox = "11111111-2222-3333-4444-555555555555"
principal = "beheer@contoso.nl"
address = "verkoop@contoso.nl"

[accounts.federated]
provider = "graph"
tenant = "contoso.nl"
client_id = "00000000-0000-0000-0000-000000000001"
federated_token_file = "/var/run/token"
auth = "app"
mailbox = "in@contoso.nl"

[accounts.local]
provider = "maildir"
path = "./mailbox"

[jobs.emailed-invoices]
accounts = ["invoices-basic"]
import_folder = "Inbox"
processed_folder = "Inbox/Processed"
failed_folder = "Inbox/Failed"
create_folders = true
unread_only = true
since = "2026-01-31"
max_attempts = 4
handler_concurrency = 5
interval = "1h30m"
ledger = "new"

[jobs.second]
accounts = [" local "]
import_folder = "role:archive"
since = 2026-02-01
"#;

#[test]
fn every_documented_key_is_read() {
    let app = app(FULL).unwrap();
    for account in app.accounts() {
        assert!(account.problem.is_none(), "{}: {:?}", account.name, account.problem);
    }
    let names: Vec<_> = app.accounts().map(|account| account.name).collect();
    let in_order = [
        "invoices-basic",
        "invoices-imap-oauth",
        "elsewhere",
        "invoices-graph",
        "by-certificate",
        "federated",
        "local",
    ];
    assert_eq!(names, in_order, "in the order of the file");
    let mailbox = |name: &str| app.find(name).unwrap().mailbox().unwrap().name;
    assert_eq!(mailbox("invoices-basic"), "facturen@contoso.nl");
    assert_eq!(mailbox("invoices-graph"), "facturen@contoso.nl");
    assert_eq!(mailbox("by-certificate"), "verkoop@contoso.nl");

    let job = app.job("emailed-invoices").unwrap();
    assert_eq!(job.processed_folder.as_ref().unwrap().to_string(), "Inbox/Processed");
    assert_eq!(job.failed_folder.as_ref().unwrap().to_string(), "Inbox/Failed");
    assert!(job.create_folders && job.unread_only && job.ledger_new);
    assert_eq!((job.max_attempts, job.handler_concurrency), (4, 5));
    assert_eq!(job.interval, Duration::from_secs(5400));
    assert_eq!(job.since, Since::Date("2026-01-31T00:00:00Z".parse().unwrap()));
    let second = app.job("second").unwrap();
    assert_eq!(second.since, Since::Date("2026-02-01T00:00:00Z".parse().unwrap()));
    assert!(!second.ledger_new && !second.create_folders && second.processed_folder.is_none());
    assert_eq!(app.accounts_of("second").unwrap(), ["local"]);
    assert_eq!(app.jobs().collect::<Vec<_>>(), ["emailed-invoices", "second"]);
}

#[test]
fn paths_are_relative_to_the_file() {
    let app = app(FULL).unwrap();
    assert_eq!(app.state().path.as_deref(), Some(Path::new("/etc/mail/state/mail-account.db")));
    let settings = format!("{:?}", app.accounts);
    for path in ["/etc/mail/ca.pem", "/etc/mail/next.txt", "/etc/mail/app.crt", "/etc/mail/app.key", "/var/run/token"] {
        assert!(settings.contains(&format!("{path:?}")), "{path} is not in {settings}");
    }
    let app = self::app("").unwrap();
    assert_eq!(app.state().path.as_deref(), Some(Path::new("/etc/mail/mail-account.db")), "beside the file");
}

#[test]
fn no_secret_is_shown() {
    let app = app(&FULL.replace("{ env = \"INVOICES_PASSWORD\" }", "\"hunter2\"")).unwrap();
    assert!(!format!("{app:?}").contains("hunter2"));
    // TOML's own error would quote the line.
    let error = self::app("[accounts.a]\npassword = \"hunter2\" x").unwrap_err();
    assert!(!format!("{error:?} {}", error.chain()).contains("hunter2"), "{error:?}");
    for wrong in ["password = [\"hunter2\"]", "password = { env = [\"hunter2\"] }"] {
        let text = format!("[accounts.a]\nprovider = \"imap\"\nhost = \"h\"\nusername = \"u\"\n{wrong}");
        let error = self::app(&text).unwrap().account("a").unwrap_err();
        assert!(!format!("{error:?} {}", error.chain()).contains("hunter2"), "{error:?}");
        assert!(error.to_string().contains("must be a secret"), "{error}");
    }
}

/// What stops everything: text, and what the error must say.
const FATAL: &[(&str, &[&str])] = &[
    ("[acounts.a]", &["mail.toml:1: `acounts`", "did you mean `accounts`?"]),
    ("x = 1", &["mail.toml:1: `x` is not a section", "known are"]),
    ("accounts = 3", &["`accounts` must be a group of tables"]),
    ("[accounts]\na = 3", &["mail.toml:2: `accounts.a` must be a table"]),
    ("[accounts.a\n", &["mail.toml:1: this is not valid TOML"]),
    ("[jobs.a]\n[jobs.b]\n[jobs.a]", &["mail.toml:3: this is not valid TOML: duplicate key"]),
    (
        "\n\n[accounts.invoices]\nprovider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npasword = \"p\"",
        &[
            "mail.toml:7: `accounts.invoices.pasword` is not a setting of an account of provider `imap`",
            "did you mean `password`?",
        ],
    ),
    (
        "[accounts.a]\nprovider = \"imap\"\n[accounts.a.oauth]\nauht = \"app\"",
        &["mail.toml:4: `accounts.a.oauth.auht`", "did you mean `auth`?"],
    ),
    (
        "[accounts.a]\nprovider = \"imap\"\npassword = { evn = \"X\" }",
        &["mail.toml:3: `accounts.a.password.evn`", "did you mean `env`?"],
    ),
    (
        "[accounts.a]\nprovider = \"graph\"\nhost = \"h\"",
        &["`accounts.a.host` is not a setting of an account of provider `graph`"],
    ),
    (
        "[accounts.a]\nprovider = \"imapp\"",
        &["mail.toml:2: `accounts.a.provider` is `imapp`, which is not a provider", "did you mean `imap`?"],
    ),
    (
        "[accounts.a]\nprovider = \"exchange\"",
        &["`exchange`, which is not a provider", "known are", "`graph`", "`maildir`"],
    ),
    ("[accounts.a]\nenabled = true", &["mail.toml:1: `accounts.a.provider` is missing", "`\"maildir\"`"]),
    ("[accounts.a]\nprovider = 3", &["`accounts.a.provider` must be a text"]),
    ("[accounts.\" \"]\nprovider = \"imap\"", &["is not a usable name"]),
    (
        "[accounts.a]\nprovider = \"memory\"\n[accounts.\" a\"]\nprovider = \"memory\"",
        &["has the same name as `accounts."],
    ),
    (
        "[registrations.r]\nclient_sekret = \"x\"",
        &["mail.toml:2: `registrations.r.client_sekret`", "did you mean `client_secret`?"],
    ),
    ("[state]\npaht = \"x\"", &["mail.toml:2: `state.paht` is not a setting of `[state]`", "did you mean `path`?"]),
    ("[state]\npath = 3", &["mail.toml:2: `state.path` must be different: write a file or folder"]),
    ("[state]\npath = \"x\"\nurl = \"postgres://x\"", &["mail.toml:3: `state.url` is given beside `path`"]),
    ("[state]\nurl = \"mysql://u:geheim@h/d\"", &["mail.toml:2: `state.url` is not the URL of a PostgreSQL database"]),
    #[cfg(feature = "sqlite")]
    ("[state]\nkey = \"geheim!\"", &["mail.toml:2: `state.key` is not base64", "openssl rand -base64 32"]),
    #[cfg(feature = "sqlite")]
    ("[state]\nkey = \"c2hvcnQ=\"", &["mail.toml:2: `state.key` has 5 bytes instead of 32"]),
    #[cfg(feature = "sqlite")]
    ("[state]\nkey = \"\"", &["mail.toml:2: `state.key` has 0 bytes instead of 32"]),
    (
        "[jobs.j]\nacounts = []",
        &["mail.toml:2: `jobs.j.acounts` is not a setting of a job", "did you mean `accounts`?"],
    ),
    (
        "[jobs.j]\naccounts = [\"lokal\"]\n[accounts.local]\nprovider = \"memory\"",
        &["mail.toml:2: `jobs.j.accounts` names `lokal`, but there is no `[accounts.lokal]`", "did you mean `local`?"],
    ),
    ("[jobs.j]\naccounts = [\"A\"]\n[accounts.a]\nprovider = \"memory\"", &["there is no `[accounts.A]`"]),
    (
        "[accounts.a]\nprovider = \"memory\"\nmailbox = \"m\"\n[jobs.j]\naccounts = [\"a\", \" a \"]\nimport_folder = \"Inbox\"",
        &["mail.toml:5: `jobs.j.accounts` names `a` twice"],
    ),
    (
        "[accounts.a]\nprovider = \"memory\"\nmailbox = \"In@x.nl\"\n[accounts.b]\nprovider = \"memory\"\nmailbox = \"y\"\naddress = \" in@X.nl\"\n[jobs.j]\naccounts = [\"a\", \"b\"]\nimport_folder = \"Inbox\"",
        &["mail.toml:9: `jobs.j.accounts` names the mailbox `in@x.nl` twice, by `a` and by `b`"],
    ),
    (
        "[accounts.a]\nprovider = \"memory\"\nmailbox = \"m\"\n[accounts.b]\nprovider = \"memory\"\nmailbox = \"m\"\n[jobs.j]\naccounts = [\"a\"]\nimport_folder = \"inbox\"\n[jobs.k]\naccounts = [\"b\"]\nimport_folder = \"INBOX\"",
        &["mail.toml:11: `jobs.k.accounts` reads the same import folder of the mailbox `m` as the job `j`"],
    ),
    // However the inbox is called.
    (
        "[accounts.a]\nprovider = \"memory\"\nmailbox = \"m\"\n[jobs.j]\naccounts = [\"a\"]\nimport_folder = \"role:inbox\"\n[jobs.k]\naccounts = [\"a\"]\nimport_folder = \"id:INBOX\"",
        &["mail.toml:8: `jobs.k.accounts` reads the same import folder of the mailbox `m` as the job `j`"],
    ),
    // However one folder or one object id is called.
    (
        "[accounts.a]\nprovider = \"maildir\"\npath = \"./jan@x.nl\"\naddress = \"jan@x.nl\"\n[accounts.b]\nprovider = \"maildir\"\npath = \"jan@x.nl/\"\n[jobs.j]\naccounts = [\"a\", \"b\"]\nimport_folder = \"Inbox\"",
        &[
            "mail.toml:9: `jobs.j.accounts` names the mailbox `",
            "jan@x.nl` twice, by `a` and by `b`; remove one of them",
        ],
    ),
    (
        "[accounts.a]\nprovider = \"maildir\"\npath = \"m\"\naddress = \"a@x.nl\"\n[accounts.b]\nprovider = \"maildir\"\npath = \"m\"\naddress = \"b@x.nl\"\n[jobs.j]\naccounts = [\"a\"]\nimport_folder = \"Inbox\"\n[jobs.k]\naccounts = [\"b\"]\nimport_folder = \"Inbox\"",
        &["mail.toml:13: `jobs.k.accounts` reads the same import folder of the mailbox `"],
    ),
];

#[test]
fn what_stops_everything_names_the_place_and_the_remedy() {
    for (text, says) in FATAL {
        let error = app(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{text}");
        for part in *says {
            assert!(error.to_string().contains(part), "{text}\n{error}\ndoes not contain\n{part}");
        }
    }
}

/// What is wrong with the account `a`: its lines after `[accounts.a]`, and what the error must say.
const ACCOUNT: &[(&str, &[&str])] = &[
    (
        "provider = \"imap\"\nusername = \"u\"\npassword = \"p\"",
        &["mail.toml:2: `accounts.a.host` is missing; write a text"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"",
        &["`accounts.a.password` is missing; write `password` or `oauth`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\nport = \"993\"",
        &["mail.toml:7: `accounts.a.port` must be different: write a whole number from 1 to 65535"],
    ),
    ("provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\nport = 70000", &["from 1 to 65535"]),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\ntls = \"ssl\"",
        &["`accounts.a.tls` is `ssl`, which is not known", "`implicit`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\ntls = \"none\"",
        &["`accounts.a.tls` is `none`", "unprotected to `h`"],
    ),
    ("provider = \"imap\"\nhost = \"imaps://h\"\nusername = \"u\"\npassword = \"p\"", &["`accounts.a.host` is a URL"]),
    (
        "provider = \"imap\"\nhost = \"h:143\"\nusername = \"u\"\npassword = \"p\"",
        &["`accounts.a.host` has a port in it", "`port = 143`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\nenabled = false",
        &["`accounts.a.enabled` is `false`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\nenabled = \"no\"",
        &["`accounts.a.enabled` must be different", "`true` or `false`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\naddress = \"\"",
        &["`accounts.a.address` is empty"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\noauth = { auth = \"app\" }",
        &["`accounts.a.password` is given beside `oauth`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\noauth = { registration = \"r\" }",
        &["`accounts.a.oauth.auth` is missing", "`\"app\"` or `\"delegated\"`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\noauth = { registration = \"r\", auth = \"app\", principal = \"p@x.nl\" }",
        &["`accounts.a.oauth.principal` says who signs in"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\noauth = { registration = \"r\", auth = \"app\", token_url = \"http://x.nl/t\", scopes = [\"s\"] }",
        &["`accounts.a.oauth.token_url` would send credentials unprotected to `x.nl`"],
    ),
    (
        "provider = \"imap\"\nhost = \"h\"\nusername = \"u\"\noauth = { registration = \"r\", auth = \"delegated\", token_url = \"https://x.nl/t\" }",
        &["`accounts.a.oauth.authorize_url` is missing"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\nregistration = \"rr\"",
        &["mail.toml:6: `accounts.a.registration` is `rr`, but there is no `[registrations.rr]`; did you mean `r`?"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\nregistration = \"r\"\ntenant = \"x.nl\"",
        &["mail.toml:7: `accounts.a.tenant` is also given as `registrations.r.tenant`; keep one of them"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"",
        &["`accounts.a.client_id` is missing; write a text, here or in an app registration"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"abc\"\nclient_secret = \"s\"",
        &["`accounts.a.client_id` is not an id of 36 characters"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"organizations\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\"",
        &["`accounts.a.tenant` is `organizations`, but with `auth = \"app\"` only one tenant"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"",
        &["`accounts.a.client_secret` is missing; write `client_secret`, `certificate`"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"11111111-2222-3333-4444-555555555555\"",
        &["`accounts.a.client_secret` looks like the secret's ID"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s \"",
        &["`accounts.a.client_secret` has blanks"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\\nt\"",
        &["`accounts.a.client_secret` has a line break"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"'00000000-0000-0000-0000-000000000000'\"\nclient_secret = \"s\"",
        &["`accounts.a.client_id` is not an id of 36 characters"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"https://login.microsoftonline.com/common/oauth2/token\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\"",
        &["`accounts.a.tenant` is `common`, but with `auth = \"app\"` only one tenant"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"\\\"x.nl\\\"\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\"",
        &["`accounts.a.tenant` has quotes in it"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"'s'\"",
        &["`accounts.a.client_secret` has quotes"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\ntenant = \"x.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\"\nfederated_token_file = \"f\"",
        &["`accounts.a.federated_token_file` is given beside `client_secret`"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\nregistration = \"r\"\ngraph_url = \"http://graph.x.nl\"",
        &["`accounts.a.graph_url` would send credentials unprotected to `graph.x.nl`"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"Jan\"\nauth = \"app\"\nregistration = \"r\"",
        &["`accounts.a.mailbox` is neither a mail address"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nregistration = \"r\"",
        &["`accounts.a.auth` is missing; write `\"app\"` or `\"delegated\"`"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"App\"\nregistration = \"r\"",
        &["`accounts.a.auth` is `App`, which is not known; did you mean `app`?"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\nregistration = \"r\"\nprincipal = \"x\"",
        &["`accounts.a.principal` says who signs in"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\nregistration = \"id\"",
        &["`registrations.id.client_secret` looks like the secret's ID"],
    ),
    (
        "provider = \"graph\"\nmailbox = \"m@x.nl\"\nauth = \"app\"\nregistration = \"bad\"",
        &["`registrations.bad.tenant` must be different: write a text"],
    ),
    ("provider = \"maildir\"", &["`accounts.a.path` is missing; write a file or folder"]),
    ("provider = \"maildir\"\npath = \"  \"", &["`accounts.a.path` is empty"]),
];

#[test]
fn what_is_wrong_inside_an_account_stops_only_that_account() {
    for (lines, says) in ACCOUNT {
        let text = format!(
            "\n[accounts.a]\n{lines}\n[accounts.b]\nprovider = \"memory\"\nmailbox = \"b\"\n\
             [registrations.r]\ntenant = \"contoso.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\"\n\
             [registrations.id]\ntenant = \"contoso.nl\"\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"11111111-2222-3333-4444-555555555555\"\n\
             [registrations.bad]\ntenant = 3\nclient_id = \"00000000-0000-0000-0000-000000000000\"\nclient_secret = \"s\"\n"
        );
        let app = app(&text).unwrap_or_else(|e| panic!("{lines}\n{e}"));
        app.account("b").unwrap();
        let error = app.account("a").expect_err(lines);
        assert_eq!((error.kind(), error.account()), (ErrorKind::InvalidConfig, Some("a")), "{lines}\n{error}");
        for part in *says {
            assert!(error.to_string().contains(part), "{lines}\n{error}\ndoes not contain\n{part}");
        }
    }
}

/// What is wrong with the job `j`: its lines after `[jobs.j]`, and what the error must say.
const JOB: &[(&str, &str)] = &[
    ("import_folder = \"Inbox\"", "mail.toml:4: `jobs.j.accounts` is missing; write a list of texts"),
    ("accounts = []\nimport_folder = \"Inbox\"", "`jobs.j.accounts` is empty; name at least one"),
    ("accounts = \"a\"\nimport_folder = \"Inbox\"", "`jobs.j.accounts` must be different: write a list"),
    ("accounts = [\"a\"]", "`jobs.j.import_folder` is missing"),
    (
        "accounts = [\"a\"]\nimport_folder = \"Inbox//x\"",
        "mail.toml:6: `jobs.j.import_folder` is wrong: `Inbox//x` does not name a folder",
    ),
    ("accounts = [\"a\"]\nimport_folder = \"role:postvak\"", "known are role:inbox"),
    (
        "accounts = [\"a\"]\nimport_folder = \"Inbox\"\ninterval = \"soon\"",
        "`jobs.j.interval` is `soon`, which is not a span of time",
    ),
    (
        "accounts = [\"a\"]\nimport_folder = \"Inbox\"\ninterval = 5",
        "`jobs.j.interval` must be different: write a span of time",
    ),
    ("accounts = [\"a\"]\nimport_folder = \"Inbox\"\ninterval = \"0s\"", "the shortest span of time"),
    ("accounts = [\"a\"]\nimport_folder = \"Inbox\"\ninterval = \"-5m\"", "cannot be negative"),
    (
        "accounts = [\"a\"]\nimport_folder = \"Inbox\"\nsince = \"yesterday\"",
        "`jobs.j.since` is `yesterday`, which is not known; write `\"all\"`",
    ),
    ("accounts = [\"a\"]\nimport_folder = \"Inbox\"\nsince = \"2026-02-30\"", "`jobs.j.since` is `2026-02-30`"),
    (
        "accounts = [\"a\"]\nimport_folder = \"Inbox\"\nmax_attempts = 0",
        "`jobs.j.max_attempts` must be different: write a whole number from 1",
    ),
    (
        "accounts = [\"a\"]\nimport_folder = \"Inbox\"\nledger = \"old\"",
        "`jobs.j.ledger` is `old`, which is not known; known are `new`",
    ),
];

#[test]
fn what_is_wrong_inside_a_job_stops_only_that_job() {
    for (lines, says) in JOB {
        let text = format!(
            "[accounts.a]\nprovider = \"memory\"\nmailbox = \"m\"\n[jobs.j]\n{lines}\n[jobs.k]\naccounts = [\"a\"]\nimport_folder = \"Other\""
        );
        let app = app(&text).unwrap_or_else(|e| panic!("{lines}\n{e}"));
        app.job("k").unwrap();
        let error = app.job("j").expect_err(lines);
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(says), "{lines}\n{error}\ndoes not contain\n{says}");
    }
}

#[test]
fn spans_of_time_and_days() {
    for (text, seconds) in [("5m", 300), ("30s", 30), ("1h30m", 5400), ("2h", 7200), (" 90s ", 90), ("1m 5s", 65)] {
        assert_eq!(value::parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
    }
    assert_eq!(value::parse_since("all"), Ok(Since::All));
    assert_eq!(value::parse_since("now"), Ok(Since::Now));
}

#[test]
fn only_configured_names_can_be_opened() {
    let app = app("[accounts.invoices]\nprovider = \"memory\"\nmailbox = \"m\"\n[jobs.daily]\naccounts = [\"invoices\"]\nimport_folder = \"Inbox\"").unwrap();
    assert!(app.account(" invoices ").is_ok());
    assert_eq!(
        app.account("Invoices").unwrap_err().to_string(),
        "there is no account `Invoices` in mail.toml; did you mean `invoices`?"
    );
    assert_eq!(
        app.job("dayly").unwrap_err().to_string(),
        "there is no job `dayly` in mail.toml; did you mean `daily`?"
    );
    let again = app.account("invoices").unwrap();
    assert!(Arc::ptr_eq(&again, &app.account("invoices").unwrap()), "opened once");
}

#[test]
fn two_jobs_may_share_a_mailbox_but_not_a_folder() {
    let text = "[accounts.a]\nprovider = \"memory\"\nmailbox = \"m\"\n\
        [jobs.j]\naccounts = [\"a\"]\nimport_folder = \"Inbox\"\n[jobs.k]\naccounts = [\"a\"]\nimport_folder = \"Inbox/Other\"";
    app(text).unwrap();
}

#[test]
fn the_file_itself() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mail.toml");
    let error = MailApp::load(&file).unwrap_err();
    assert!(error.to_string().contains("mail.toml` cannot be read"), "{error}");
    fs::write(&file, b"x = \"\xff\"").unwrap();
    assert!(MailApp::load(&file).unwrap_err().to_string().contains("is not UTF-8"));
    fs::write(&file, "\u{feff}[accounts.a]\r\nprovider = \"memory\"\r\nmailbox = \"m\"\r\n").unwrap();
    let app = MailApp::load(&file).unwrap();
    assert_eq!(app.state().path, Some(folder.path().join("mail-account.db")));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "loading makes no file");
}

/// A settings screen shows every key that a provider reads, and no other: serde names the keys of a struct when it
/// meets one it does not know.
#[test]
fn kinds_have_every_key_of_the_settings() {
    fn keys<'a>(error: &'a str, stranger: &str) -> Vec<&'a str> {
        assert!(error.contains(&format!("unknown field `{stranger}`")), "{error}");
        let mut keys: Vec<_> = error.split('`').skip(3).step_by(2).collect();
        keys.sort_unstable();
        keys
    }
    fn names(fields: &[Field], with: &[&'static str]) -> Vec<&'static str> {
        let of_app = fields.iter().any(|field| field.registration);
        let mut names: Vec<_> = fields
            .iter()
            .filter(|field| !field.registration && !with.contains(&field.name))
            .map(|field| field.name)
            .collect();
        names.extend(of_app.then_some(kinds::APP));
        names.sort_unstable();
        names
    }
    let stranger: toml::Table = "zzz = 1".parse().unwrap();
    for kind in Registry::default().kinds() {
        let parse = Registry::default().get(kind.id).unwrap().parse;
        let error = parse(stranger.clone()).unwrap_err();
        let shared = ["registration", "address", "enabled"];
        assert_eq!(names(&kind.fields, &shared), keys(error.message(), "zzz"), "{}", kind.id);
    }
    let registration = stranger.clone().try_into::<crate::auth::Registration>().unwrap_err();
    let mut expected: Vec<_> = crate::auth::Registration::fields().iter().map(|field| field.name).collect();
    expected.sort_unstable();
    assert_eq!(keys(registration.message(), "zzz"), expected);
    let state = stranger.clone().try_into::<StateConfig>().unwrap_err();
    assert_eq!(keys(state.message(), "zzz"), names(&kinds::state(), &[]));

    let oauth = Registry::default().get("imap").unwrap().kind.field("oauth").unwrap().value.clone();
    let Value::Group(oauth) = oauth else { panic!("a group") };
    let error = toml::from_str::<crate::provider::imap::ImapOAuth>("zzz = 1").unwrap_err();
    assert_eq!(keys(error.message(), "zzz"), names(&oauth, &["registration"]));
}

#[test]
fn kinds_say_what_is_secret_and_required() {
    let app = app("").unwrap();
    let kinds: Vec<_> = app.kinds().map(|kind| kind.id).collect();
    assert_eq!(kinds, ["graph", "imap", "maildir", "memory"]);
    let imap = app.kinds().find(|kind| kind.id == "imap").unwrap();
    assert!(imap.field("password").unwrap().secret && imap.field("host").unwrap().required);
    let graph = app.kinds().find(|kind| kind.id == "graph").unwrap();
    assert!(graph.field("client_secret").unwrap().secret && graph.field("client_id").unwrap().required);
    assert!(graph.field("registration").is_some() && graph.field("address").is_some());
    for kind in app.kinds() {
        for field in &kind.fields {
            assert!(!field.label.english.is_empty() && !field.label.dutch.is_empty(), "{}.{}", kind.id, field.name);
        }
    }
}

#[test]
fn a_test_can_put_its_own_mailbox_in_place() {
    let text = "[accounts.a]\nprovider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = \"p\"\n[accounts.off]\nprovider = \"memory\"\nmailbox = \"m\"\nenabled = false";
    let account = |name: &str| -> Arc<dyn MailAccount> {
        let mailbox = MemoryMailbox::new("facturen@contoso.example");
        Arc::new(crate::provider::memory::MemoryAccount::open(name, &mailbox, Default::default()))
    };
    let app = app(text).unwrap().with_account(account("a")).unwrap();
    assert_eq!(app.account("a").unwrap().mailbox().provider, "memory");
    let error = app.with_account(account("off")).unwrap_err();
    assert!(error.to_string().contains("`accounts.off.enabled` is `false`"), "{error}");
}

#[test]
fn a_secret_of_another_service_may_be_a_guid() {
    let text = "[accounts.a]\nprovider = \"imap\"\nhost = \"h\"\nusername = \"u\"\n\
        oauth = { auth = \"app\", client_id = \"mail\", client_secret = \"11111111-2222-3333-4444-555555555555\", token_url = \"https://x.nl/t\", scopes = [\"s\"] }";
    app(text).unwrap().account("a").unwrap();
}

#[test]
fn a_secret_is_read_when_it_is_first_needed() {
    let text =
        "[accounts.a]\nprovider = \"imap\"\nhost = \"h\"\nusername = \"u\"\npassword = { env = \"SURELY_NOT_SET_2\" }";
    assert!(app(text).unwrap().accounts().all(|account| account.problem.is_none()));
}

/// Where a sign-in is stored for a configuration with these lines in `[state]`, or why it is not.
#[cfg(feature = "sqlite")]
async fn store_in(folder: &Path, state: &str) -> Result<Arc<dyn TokenStore>> {
    let store = MailApp::from_str(&format!("[state]\n{state}"), folder)?.token_store().await?;
    let id = crate::store::SignInId::new("https://login.example/contoso", "app", "jan@contoso.example");
    let signer = crate::store::Signer::new("oid", "jan@contoso.example");
    let sign_in = crate::store::SignIn::new(crate::Secret::new("token"), signer, jiff::Timestamp::UNIX_EPOCH);
    store.put_sign_in(&id, &sign_in, true).await?;
    store.sign_in(&id).await?.expect("it was just stored");
    Ok(store)
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn sign_ins_are_stored_beside_the_ledger_under_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    std::fs::write(folder.path().join("key.txt"), format!("{key}\n")).unwrap();
    store_in(folder.path(), &format!("key = \"{key}\"")).await.unwrap();
    store_in(folder.path(), "key = { file = \"key.txt\" }").await.unwrap();
    store_in(folder.path(), "plaintext_tokens = true").await.unwrap();

    let app = MailApp::from_str("[state]\nkey = { env = \"SURELY_NOT_SET_2\" }", folder.path()).unwrap();
    app.ledger().await.expect("it needs no key");
    let refused = async |state: &str, parts: &[&str]| {
        let error = store_in(folder.path(), state).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        for part in parts {
            assert!(error.to_string().contains(part), "{error}\nmisses {part}");
        }
    };
    refused("key = { env = \"SURELY_NOT_SET_2\" }", &["`state.key`", "SURELY_NOT_SET_2"]).await;
    std::fs::write(folder.path().join("key.txt"), "geheim!").unwrap();
    refused("key = { file = \"key.txt\" }", &["`state.key` is not base64"]).await;
    refused("", &["without a key", "`key` in `[state]`", "plaintext_tokens = true"]).await;
}
