//! Test Connection for the accounts and jobs of a [`MailApp`], and which of them sign in in a retired way.

use std::sync::Arc;

use super::{MailApp, SignIn, account::Account};
use crate::{
    MailAccount, Result,
    check::{self, Report, Retirement},
    provider::imap,
};

/// An account that signs in in a way that its service has retired.
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

impl MailApp {
    /// Test Connection: tests an account, for a job or as such; see [`check`].
    ///
    /// What is wrong inside the account or the job is a failed step. No ledger is opened: this works on a draft. The
    /// account is opened apart from the one that jobs use and signs in anew, so that what was granted a minute ago
    /// counts.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new()?.block_on(async {
    /// use mail_account::{MailApp, check::{Cause, StepId}};
    ///
    /// let app = MailApp::from_str("[accounts.a]\nprovider = \"memory\"\nmailbox = \"a@contoso.example\"", ".")?;
    /// assert!(app.check("a", None).await?.ok());
    /// # let app = MailApp::from_str("[accounts.a]\nprovider = \"memory\"\nmailbox = \"a@contoso.example\"\nenabled = false", ".")?;
    /// // The same account with `enabled = false`:
    /// let report = app.check("a", None).await?;
    /// assert_eq!((report.steps[0].step, report.steps[0].cause), (StepId::Settings, Some(Cause::SettingsWrong)));
    /// # Ok::<(), mail_account::Error>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the configuration has no such account or job.
    pub async fn check(&self, account: &str, job: Option<&str>) -> Result<Report> {
        let account = self.find(account)?;
        let job = job.map(|name| self.find_job(name)).transpose()?.map(|job| job.get());
        let opened = match self.opened_apart(account) {
            Ok(opened) => opened,
            Err(error) => return Ok(Report::unopened(&account.name, &error)),
        };
        let others = || self.others(account);
        Ok(match job {
            None => check::check_among(&*opened, None, &others).await,
            Some(Ok(job)) => check::check_among(&*opened, Some(job), &others).await,
            // The account itself is looked at all the same.
            Some(Err(error)) => check::check_among(&*opened, None, &others).await.for_broken_job(&error),
        })
    }

    /// Tests all accounts of a job, at the same time, in the job's order.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the configuration has no such job.
    pub async fn check_job(&self, job: &str) -> Result<Vec<Report>> {
        let accounts = self.accounts_of(job)?;
        futures::future::try_join_all(accounts.iter().map(|account| self.check(account, Some(job)))).await
    }

    /// The accounts that sign in with a password where the service takes none any more, in the order of the file. Does
    /// no I/O.
    ///
    /// ```
    /// use mail_account::MailApp;
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
    /// let retiring = app.retiring();
    /// assert_eq!((retiring[0].account.as_str(), &retiring[0].jobs[..]), ("old", &["invoices".to_owned()][..]));
    /// assert_eq!(retiring[0].retirement.began.map(|day| day.to_string()).as_deref(), Some("2022-10-01"));
    /// # Ok::<(), mail_account::Error>(())
    /// ```
    #[must_use]
    pub fn retiring(&self) -> Vec<RetiringAccount> {
        let of = |account: &Account| {
            if account.provider != imap::NAME || account.sign_in != Some(SignIn::Password) {
                return None;
            }
            let host = account.host.clone()?;
            let mailbox = account.mailbox().map(|mailbox| mailbox.name);
            let uses = self.jobs.iter().filter(|job| job.accounts.contains(&account.name));
            Some(RetiringAccount {
                account: account.name.clone(),
                retirement: Retirement::of_password(&host, mailbox.as_deref())?,
                host,
                mailbox,
                enabled: account.enabled,
                jobs: uses.map(|job| job.name.clone()).collect(),
            })
        };
        self.accounts.iter().filter_map(of).collect()
    }

    /// The account once more, for a look at it that signs in anew and waits no longer than a check does.
    fn opened_apart(&self, account: &Account) -> Result<Arc<dyn MailAccount>> {
        if self.given.contains(&account.name) {
            return self.account(&account.name);
        }
        let tokens = Arc::clone(&self.lazy_tokens);
        let context = self.context.apart().with_patience(check::patience());
        account.open_with(context, |opening| opening.with_token_store(tokens))
    }

    /// The accounts beside this one that can be opened, each opened when its turn comes.
    fn others<'a>(&'a self, account: &'a Account) -> Box<dyn Iterator<Item = Arc<dyn MailAccount>> + Send + 'a> {
        let others = self.accounts.iter().filter(|other| other.enabled && other.name != account.name);
        Box::new(others.filter_map(|other| self.opened_apart(other).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Language;

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
        let found = app.retiring();
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
