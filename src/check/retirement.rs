//! Ways of signing in that a service has retired.

use jiff::civil::{Date, date};

use crate::{Language, provider::imap};

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
    /// IMAP with a password at Exchange Online.
    pub const EXCHANGE_ONLINE: Self = Self {
        code: "exchange_online_basic",
        began: Some(date(2022, 10, 1)),
        ended: Some(date(2023, 1, 1)),
        page: "Deprecation of Basic authentication in Exchange Online",
        english: "Exchange Online no longer signs anybody in to IMAP with a password, app passwords included, and it cannot be switched on again; use an account of provider `graph`, or `oauth`.",
        dutch: "Exchange Online laat niemand meer met een wachtwoord bij IMAP aanmelden, ook niet met een app-wachtwoord, en dat kan niet weer worden aangezet; gebruik een account van provider `graph`, of `oauth`.",
    };

    /// IMAP with a password at Outlook.com, for personal mailboxes.
    pub const OUTLOOK_COM: Self = Self {
        code: "outlook_com_basic",
        began: None,
        ended: Some(date(2024, 9, 16)),
        page: "Modern authentication methods now needed to continue syncing Outlook email in non-Microsoft email apps",
        english: "Outlook.com no longer signs anybody in to IMAP with a password; use `oauth` with `auth = \"delegated\"`.",
        dutch: "Outlook.com laat niemand meer met een wachtwoord bij IMAP aanmelden; gebruik `oauth` met `auth = \"delegated\"`.",
    };

    /// What has ended signing in with a password at this server, for this mailbox, if anything has.
    ///
    /// ```
    /// use mail_account::check::Retirement;
    ///
    /// let ended = Retirement::of_password("outlook.office365.com", Some("facturen@contoso.example"));
    /// assert_eq!(ended, Some(&Retirement::EXCHANGE_ONLINE));
    /// assert_eq!(Retirement::of_password("mail.contoso.example", None), None);
    /// ```
    #[must_use]
    pub fn of_password(host: &str, mailbox: Option<&str>) -> Option<&'static Self> {
        if !imap::is_exchange_online(host) {
            return None;
        }
        Some(if is_personal(host, mailbox) { &Self::OUTLOOK_COM } else { &Self::EXCHANGE_ONLINE })
    }

    /// What was ended, and what to use instead.
    #[must_use]
    pub const fn text(&self, language: Language) -> &'static str {
        match language {
            Language::Dutch => self.dutch,
            Language::English => self.english,
        }
    }
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
