//! Which accounts sign in in a way that their service has retired, and which jobs stop with them.

use jiff::civil::Date;

use crate::{Language, MailApp, config::SignIn, provider::imap};

/// Something that a service has ended, with the vendor's dates.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retirement {
    /// The stable name.
    pub code: &'static str,
    /// When the vendor began to switch it off.
    pub began: Option<Date>,
    /// When it was off everywhere, to the day where the vendor said so, else the first of the month.
    pub ended: Option<Date>,
    /// The name of the vendor's page about it, to be searched for.
    pub page: &'static str,
    english: &'static str,
    dutch: &'static str,
}

impl Retirement {
    /// What was ended, and what to use instead.
    #[must_use]
    pub const fn text(&self, language: Language) -> &'static str {
        match language {
            Language::Dutch => self.dutch,
            Language::English => self.english,
        }
    }
}

/// IMAP with a password at Exchange Online.
pub static EXCHANGE_ONLINE: Retirement = Retirement {
    code: "exchange_online_basic",
    began: Some(jiff::civil::date(2022, 10, 1)),
    ended: Some(jiff::civil::date(2023, 1, 1)),
    page: "Deprecation of Basic authentication in Exchange Online",
    english: "Exchange Online no longer signs anybody in to IMAP with a password, app passwords included, and it cannot be switched on again; use an account of provider `graph`, or `oauth`.",
    dutch: "Exchange Online laat niemand meer met een wachtwoord bij IMAP aanmelden, ook niet met een app-wachtwoord, en dat kan niet weer worden aangezet; gebruik een account van provider `graph`, of `oauth`.",
};

/// IMAP with a password at Outlook.com, for personal mailboxes.
pub static OUTLOOK_COM: Retirement = Retirement {
    code: "outlook_com_basic",
    began: None,
    ended: Some(jiff::civil::date(2024, 9, 16)),
    page: "Modern authentication methods now needed to continue syncing Outlook email in non-Microsoft email apps",
    english: "Outlook.com no longer signs anybody in to IMAP with a password; use `oauth` with `auth = \"delegated\"`.",
    dutch: "Outlook.com laat niemand meer met een wachtwoord bij IMAP aanmelden; gebruik `oauth` met `auth = \"delegated\"`.",
};

/// An account that signs in in a retired way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetiringAccount {
    /// The account's identifier.
    pub account: String,
    /// The server that it names.
    pub host: String,
    /// The mailbox, where the file tells.
    pub mailbox: Option<String>,
    /// Whether the account is enabled.
    pub enabled: bool,
    /// The jobs that use it, in the order of the file.
    pub jobs: Vec<String>,
    /// What was ended.
    pub retirement: &'static Retirement,
}

/// The accounts of a configuration that sign in with a password where the service takes none any more, in the order of
/// the file. Does no I/O.
///
/// ```
/// use mail_account::{MailApp, check::inventory::retiring};
///
/// let app = MailApp::from_str(
///     r#"
///     [accounts.old]
///     provider = "imap"
///     host = "outlook.office365.com"
///     username = "facturen@contoso.example"
///     password = { env = "INVOICES_PASSWORD" }
///
///     [jobs.invoices]
///     accounts = ["old"]
///     import_folder = "Inbox"
///     "#,
///     ".",
/// )?;
/// let retiring = retiring(&app);
/// assert_eq!((retiring[0].account.as_str(), &retiring[0].jobs[..]), ("old", &["invoices".to_owned()][..]));
/// assert_eq!(retiring[0].retirement.began.map(|day| day.to_string()).as_deref(), Some("2022-10-01"));
/// # Ok::<(), mail_account::Error>(())
/// ```
#[must_use]
pub fn retiring(app: &MailApp) -> Vec<RetiringAccount> {
    let of = |account: crate::config::AccountInfo| {
        let host = account.host.filter(|host| imap::is_exchange_online(host))?;
        if account.provider != imap::NAME || account.sign_in != Some(SignIn::Password) {
            return None;
        }
        let mailbox = account.mailbox.map(|mailbox| mailbox.name);
        let personal = is_personal(&host, mailbox.as_deref());
        let uses = |job: &&str| app.accounts_of(job).is_ok_and(|accounts| accounts.contains(&account.name));
        Some(RetiringAccount {
            jobs: app.jobs().filter(uses).map(str::to_owned).collect(),
            account: account.name,
            host,
            mailbox,
            enabled: account.enabled,
            retirement: if personal { &OUTLOOK_COM } else { &EXCHANGE_ONLINE },
        })
    };
    app.accounts().filter_map(of).collect()
}

/// Both kinds of mailboxes are served by the same hosts; a personal one shows by its address.
fn is_personal(host: &str, mailbox: Option<&str>) -> bool {
    let domain = mailbox.and_then(|mailbox| mailbox.rsplit_once('@')).map(|(_, domain)| domain.to_ascii_lowercase());
    host.eq_ignore_ascii_case("imap-mail.outlook.com")
        || domain.is_some_and(|domain| {
            let brand = domain.split('.').next().unwrap_or_default();
            matches!(brand, "outlook" | "hotmail" | "live" | "msn") && !domain.ends_with(".onmicrosoft.com")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_passwords_at_exchange_online_are_listed() {
        let app = MailApp::from_str(
            r#"
            [accounts.basic]
            provider = "imap"
            host = "Outlook.Office365.com"
            username = "facturen@contoso.nl"
            password = "geheim"

            [accounts.off]
            provider = "imap"
            host = "outlook.office365.us"
            username = "inkoop@contoso.nl"
            password = "geheim"
            enabled = false

            [accounts.personal]
            provider = "imap"
            host = "outlook.office365.com"
            username = "jan@hotmail.nl"
            password = "geheim"

            [accounts.token]
            provider = "imap"
            host = "outlook.office365.com"
            username = "facturen@contoso.nl"
            oauth = { tenant = "contoso.nl", client_id = "00000000-0000-0000-0000-000000000001", client_secret = "x~y", auth = "app" }

            [accounts.own]
            provider = "imap"
            host = "mail.contoso.nl"
            username = "verkoop@contoso.nl"
            password = "geheim"

            # Broken in another way, and still one of them.
            [accounts.draft]
            provider = "imap"
            host = "outlook.office365.com"
            username = ""
            password = { env = "X" }

            [jobs.a]
            accounts = ["basic"]
            import_folder = "Inbox"

            [jobs.b]
            accounts = ["own", "personal"]
            import_folder = "Inbox"

            [jobs.c]
            accounts = ["basic"]
            import_folder = "Facturen"
            "#,
            ".",
        )
        .unwrap();
        let found = retiring(&app);
        let names: Vec<_> = found.iter().map(|a| (a.account.as_str(), a.enabled, a.retirement.code)).collect();
        let (business, personal) = ("exchange_online_basic", "outlook_com_basic");
        assert_eq!(
            names,
            [
                ("basic", true, business),
                ("off", false, business),
                ("personal", true, personal),
                ("draft", true, business)
            ]
        );
        assert_eq!(found[0].jobs, ["a", "c"]);
        assert_eq!(found[1].jobs, [""; 0]);
        assert_eq!(found[2].jobs, ["b"]);
        assert!(found[0].retirement.text(Language::Dutch).contains("app-wachtwoord"));
    }
}
