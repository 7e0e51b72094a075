//! Causes, and the one table from what accounts answer to what is wrong.

use super::StepId;
use crate::{Error, ErrorKind, Language};

/// Who repairs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Who {
    /// Whoever writes the configuration.
    You,
    /// The administrator of the network or of the Microsoft 365 tenant.
    ItAdmin,
    /// The administrator of Exchange, or of the mail server.
    ExchangeAdmin,
    /// The maker of this program, or the service itself.
    Vendor,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::You, Self::ItAdmin, Self::ExchangeAdmin, Self::Vendor];

    /// For people.
    #[must_use]
    pub const fn text(self, language: Language) -> &'static str {
        match (self, language) {
            (Self::You, Language::Dutch) => "u",
            (Self::You, Language::English) => "you",
            (Self::ItAdmin, Language::Dutch) => "IT-beheerder",
            (Self::ItAdmin, Language::English) => "IT administrator",
            (Self::ExchangeAdmin, Language::Dutch) => "Exchange-beheerder",
            (Self::ExchangeAdmin, Language::English) => "Exchange administrator",
            (Self::Vendor, Language::Dutch) => "leverancier",
            (Self::Vendor, Language::English) => "vendor",
        }
    }

    /// The stable name used in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::You => "you",
            Self::ItAdmin => "it-admin",
            Self::ExchangeAdmin => "exchange-admin",
            Self::Vendor => "vendor",
        }
    }
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $cause:ident = $code:literal, $who:ident, $stop:ident;)+) => {
        /// Why a step failed. Closed, so that each has a text; more may come.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Cause { $($(#[doc = $doc])+ $cause,)+ }

        impl Cause {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$cause),+];

            /// The stable code used in JSON and in the documentation.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$cause => $code,)+ }
            }

            /// Who repairs it.
            #[must_use]
            pub const fn who(self) -> Who {
                match self { $(Self::$cause => Who::$who,)+ }
            }

            /// On the way to the mailbox, the step that it stops.
            const fn step(self) -> StepId {
                match self { $(Self::$cause => StepId::$stop,)+ }
            }
        }
    };
}

causes! {
    /// A value in the configuration cannot be right.
    SettingsWrong = "settings_wrong", You, Settings;
    /// A variable or secret file is missing.
    SecretMissing = "secret_missing", You, Settings;
    /// The secret's ID stands where its value should.
    SecretIsId = "secret_is_id", You, Settings;
    /// The server's name is unknown.
    DnsFailed = "dns_failed", You, Reach;
    /// Nothing listens there, or a firewall refuses.
    ConnectionRefused = "connection_refused", ItAdmin, Reach;
    /// The certificate is for another name.
    TlsName = "tls_name", You, Reach;
    /// The certificate has expired.
    TlsExpired = "tls_expired", ItAdmin, Reach;
    /// The certificate's issuer is not trusted.
    TlsUnknownCa = "tls_unknown_ca", ItAdmin, Reach;
    /// The server wants TLS, or does not speak it there.
    NeedsTls = "needs_tls", You, Reach;
    /// A proxy stands in between.
    Proxy = "proxy", ItAdmin, Reach;
    /// This machine's clock is wrong.
    ClockSkew = "clock_skew", ItAdmin, SignIn;
    /// There is no such tenant.
    TenantUnknown = "tenant_unknown", You, SignIn;
    /// The tenant belongs to another cloud.
    WrongCloud = "wrong_cloud", You, SignIn;
    /// The tenant has no such application.
    ClientIdUnknown = "client_id_unknown", You, SignIn;
    /// The client secret is wrong.
    SecretWrong = "secret_wrong", You, SignIn;
    /// The client secret has expired.
    SecretExpired = "secret_expired", ItAdmin, SignIn;
    /// The certificate is not accepted.
    CertificateRejected = "certificate_rejected", ItAdmin, SignIn;
    /// The redirect URI is not registered.
    RedirectUri = "redirect_uri", ItAdmin, SignIn;
    /// The application is disabled.
    RegistrationDisabled = "registration_disabled", ItAdmin, SignIn;
    /// Nobody has consented.
    ConsentMissing = "consent_missing", ItAdmin, SignIn;
    /// An administrator's consent is awaited.
    ConsentPending = "consent_pending", ItAdmin, SignIn;
    /// A policy blocks the sign-in.
    ConditionalAccess = "conditional_access", ItAdmin, SignIn;
    /// A further proof of identity is asked for.
    MfaRequired = "mfa_required", You, SignIn;
    /// Somebody must sign in again.
    SignInNeeded = "sign_in_needed", You, SignIn;
    /// Another person than expected has signed in.
    WrongIdentity = "wrong_identity", You, SignIn;
    /// User name or password is wrong.
    PasswordWrong = "password_wrong", You, SignIn;
    /// The password has expired.
    PasswordExpired = "password_expired", You, SignIn;
    /// The account is locked or disabled.
    AccountLocked = "account_locked", ItAdmin, SignIn;
    /// The service wants an app password.
    AppPassword = "app_password", You, SignIn;
    /// Signing in with a password is switched off.
    BasicAuthOff = "basic_auth_off", You, SignIn;
    /// Refused, and the server does not say why.
    SignInRefused = "sign_in_refused", You, SignIn;
    /// IMAP is switched off for the mailbox.
    ImapDisabled = "imap_disabled", ExchangeAdmin, SignIn;
    /// Signed in, but the mailbox was not opened.
    NotConnected = "not_connected", ExchangeAdmin, Mailbox;
    /// Too many connections at once.
    ConnectionLimit = "connection_limit", You, SignIn;
    /// There is no such mailbox.
    MailboxUnknown = "mailbox_unknown", You, Mailbox;
    /// The mailbox is not in Exchange Online, and the directory does not say whether for a licence, for being too new,
    /// or for being on-premises.
    MailboxNotHosted = "mailbox_not_hosted", ItAdmin, Mailbox;
    /// The user has no licence for Exchange Online.
    NoLicence = "no_licence", ItAdmin, Mailbox;
    /// The licence is so new that Exchange has not made the mailbox yet.
    LicenceLag = "licence_lag", You, Mailbox;
    /// The mailbox is on the company's own server.
    OnPremises = "on_premises", ExchangeAdmin, Mailbox;
    /// The permission is missing.
    PermissionLacking = "permission_lacking", ItAdmin, Mailbox;
    /// The permission is of the wrong kind: delegated for an app, or the reverse.
    PermissionWrongKind = "permission_wrong_kind", ItAdmin, Mailbox;
    /// More is permitted than the job needs. A hint: no step fails by it.
    PermissionSurplus = "permission_surplus", ItAdmin, Permissions;
    /// The scope of a role of Exchange's leaves the mailbox out.
    RbacScope = "rbac_scope", ExchangeAdmin, Mailbox;
    /// An application access policy excludes the mailbox.
    PolicyExcludesMailbox = "policy_excludes_mailbox", ExchangeAdmin, Mailbox;
    /// The person has no rights on the shared mailbox.
    SharedRightsMissing = "shared_rights_missing", ExchangeAdmin, Mailbox;
    /// The folder is not there.
    FolderMissing = "folder_missing", You, Mailbox;
    /// The name fits several folders.
    FolderAmbiguous = "folder_ambiguous", You, Mailbox;
    /// The folder cannot be written to.
    FolderReadOnly = "folder_read_only", ExchangeAdmin, Mailbox;
    /// Mail would be moved to where it is read from.
    FolderSame = "folder_same", You, Mailbox;
    /// The folder holds no messages.
    FolderNoMail = "folder_no_mail", You, Mailbox;
    /// The service asks for a pause.
    Throttled = "throttled", Vendor, Reach;
    /// The service cannot be reached or is failing.
    ServiceDown = "service_down", Vendor, Reach;
    /// There was no answer in time.
    NoAnswer = "no_answer", ItAdmin, Reach;
    /// The answer is not known here; its text is kept.
    Unknown = "unknown", Vendor, Mailbox;
}

impl Cause {
    /// On the way to the mailbox, how far the call came that ended so.
    pub(super) fn stops_at(self, error: &Error) -> StepId {
        match (self, error.kind()) {
            (Self::Unknown, ErrorKind::Unauthenticated | ErrorKind::SignInNeeded) => StepId::SignIn,
            (Self::Unknown, ErrorKind::InvalidConfig) => StepId::Settings,
            _ => self.step(),
        }
    }
}

/// What else is known once an error has been looked into: by the directory, the token, or another mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Seen {
    NoLicence,
    JustLicensed,
    OnPremises,
    /// The token shows no permission of the kind that counts.
    NoPermission,
    /// It shows none, and opens another mailbox all the same.
    OtherMailboxOpens,
    /// It shows all that is needed, and the mailbox is not that of whoever signed in.
    PersonNotLetIn,
}

/// What an error must show for a rule to apply; what is empty does not matter.
struct Rule {
    cause: Cause,
    seen: Option<Seen>,
    codes: &'static [&'static str],
    /// One of these, in the error or its sources, ignoring case.
    says: &'static [&'static str],
    kinds: &'static [ErrorKind],
    steps: &'static [StepId],
}

const fn code(cause: Cause, codes: &'static [&'static str]) -> Rule {
    Rule { cause, seen: None, codes, says: &[], kinds: &[], steps: &[] }
}

const fn says(cause: Cause, says: &'static [&'static str]) -> Rule {
    Rule { cause, seen: None, codes: &[], says, kinds: &[], steps: &[] }
}

const fn kind(cause: Cause, kinds: &'static [ErrorKind]) -> Rule {
    Rule { cause, seen: None, codes: &[], says: &[], kinds, steps: &[] }
}

const fn seen(cause: Cause, seen: Seen, kinds: &'static [ErrorKind]) -> Rule {
    Rule { cause, seen: Some(seen), codes: &[], says: &[], kinds, steps: &[] }
}

const FOLDERS: &[StepId] = &[StepId::ImportFolder, StepId::ProcessedFolder, StepId::FailedFolder];

/// The table, in four parts: by what else is known, by the service's code, by words, by kind. The first part with a rule
/// that applies decides, and no answer that is known meets two rules of one part.
static RULES: [&[Rule]; 4] = [
    &[
        seen(Cause::NoLicence, Seen::NoLicence, &[ErrorKind::MailboxGone]),
        seen(Cause::LicenceLag, Seen::JustLicensed, &[ErrorKind::MailboxGone]),
        seen(Cause::OnPremises, Seen::OnPremises, &[ErrorKind::MailboxGone]),
        seen(Cause::PermissionWrongKind, Seen::NoPermission, &[ErrorKind::PermissionDenied]),
        seen(Cause::RbacScope, Seen::OtherMailboxOpens, &[ErrorKind::PermissionDenied]),
        seen(Cause::SharedRightsMissing, Seen::PersonNotLetIn, &[ErrorKind::PermissionDenied]),
    ],
    &[
        code(Cause::SecretWrong, &["AADSTS7000215", "AADSTS7000218"]),
        code(Cause::SecretExpired, &["AADSTS7000222"]),
        code(Cause::CertificateRejected, &["AADSTS700027", "AADSTS50012", "AADSTS70021", "AADSTS700213"]),
        code(Cause::ClockSkew, &["AADSTS700024"]),
        code(
            Cause::TenantUnknown,
            &["AADSTS90002", "AADSTS900023", "AADSTS50194", "AADSTS9001023", "AADSTS90130", "AADSTS90124"],
        ),
        code(Cause::WrongCloud, &["AADSTS90038", "AADSTS500011", "AADSTS900382", "AADSTS900432"]),
        code(Cause::ClientIdUnknown, &["AADSTS700016"]),
        code(
            Cause::RedirectUri,
            &["AADSTS50011", "AADSTS900971", "AADSTS9002325", "AADSTS9002327", "AADSTS700084", "AADSTS700025"],
        ),
        code(Cause::NoLicence, &["AADSTS650052"]),
        code(
            Cause::SettingsWrong,
            &[
                "AADSTS70011",
                "AADSTS1002012",
                "AADSTS28000",
                "AADSTS700022",
                "AADSTS9002313",
                "AADSTS900144",
                "AADSTS90014",
            ],
        ),
        code(Cause::Proxy, &["AADSTS900561"]),
        code(Cause::RegistrationDisabled, &["AADSTS7000112"]),
        code(Cause::ConsentMissing, &["AADSTS65001", "AADSTS65004", "AADSTS650056", "AADSTS650057", "AADSTS65005"]),
        code(Cause::ConsentPending, &["AADSTS90094", "AADSTS90095"]),
        code(
            Cause::ConditionalAccess,
            &["AADSTS53003", "AADSTS53000", "AADSTS53001", "AADSTS530032", "AADSTS530035", "insufficient_claims"],
        ),
        code(Cause::MfaRequired, &["AADSTS50076", "AADSTS50079", "AADSTS50072", "AADSTS50074", "AADSTS50158"]),
        code(
            Cause::SignInNeeded,
            &[
                "AADSTS70008",
                "AADSTS700082",
                "AADSTS50173",
                "AADSTS70043",
                "AADSTS50132",
                "AADSTS50133",
                "AADSTS50058",
                "AADSTS70000",
                "AADSTS50089",
                "AADSTS501481",
                "AADSTS54005",
                "WEBALERT",
            ],
        ),
        code(Cause::WrongIdentity, &["AADSTS50020", "AADSTS16000", "AADSTS50034", "AADSTS50105"]),
        code(Cause::PasswordWrong, &["AADSTS50126", "AUTHENTICATIONFAILED"]),
        code(Cause::PasswordExpired, &["AADSTS50055", "EXPIRED"]),
        code(Cause::AccountLocked, &["AADSTS50053", "AADSTS50057", "CONTACTADMIN"]),
        code(Cause::NeedsTls, &["PRIVACYREQUIRED"]),
        Rule {
            kinds: &[ErrorKind::PermissionDenied],
            ..code(Cause::SharedRightsMissing, &["AUTHORIZATIONFAILED", "ErrorItemNotFound", "ErrorFolderNotFound"])
        },
        code(Cause::MailboxUnknown, &["ErrorInvalidUser", "Request_ResourceNotFound", "ErrorNonExistentMailbox"]),
        code(
            Cause::MailboxNotHosted,
            &["MailboxNotEnabledForRESTAPI", "MailboxNotSupportedForRESTAPI", "ResourceNotFound"],
        ),
    ],
    &[
        says(Cause::SecretIsId, &["secret's id"]),
        says(Cause::SecretMissing, &["environment variable", "which cannot be read"]),
        says(Cause::DnsFailed, &["failed to lookup address", "dns error", "name or service not known", "no such host"]),
        says(Cause::ConnectionRefused, &["connection refused"]),
        says(Cause::TlsName, &["not valid for name", "notvalidforname"]),
        says(Cause::TlsExpired, &["certificate expired", "certificate: expired"]),
        says(
            Cause::TlsUnknownCa,
            &["unknownissuer", "unknown issuer", "self-signed", "badsignature", "causedasendentity"],
        ),
        says(Cause::NeedsTls, &["does not speak tls", "does not offer starttls", "only over tls"]),
        says(Cause::Proxy, &["proxy or gateway may", "proxy or network portal", "proxy asks", "the proxy"]),
        says(Cause::PolicyExcludesMailbox, &["application access policy"]),
        says(
            Cause::BasicAuthOff,
            &[
                "password is switched off on",
                "password is switched off for this",
                "has retired sign-in with a password",
            ],
        ),
        says(Cause::AppPassword, &["wants an app password"]),
        says(Cause::AccountLocked, &["account is blocked"]),
        says(Cause::SignInRefused, &["it cannot be told apart whether", "likely causes: the token"]),
        says(Cause::ImapDisabled, &["imap is switched off for this mailbox, the server says"]),
        says(Cause::NotConnected, &["mailbox was not opened"]),
        says(Cause::ConnectionLimit, &["maximum number of connections", "too many simultaneous connections"]),
        says(Cause::FolderMissing, &["there is no folder"]),
        says(Cause::FolderReadOnly, &["is read-only for this account"]),
        says(Cause::FolderSame, &["is the import folder itself"]),
        says(Cause::FolderNoMail, &["holds no messages"]),
        says(Cause::FolderAmbiguous, &["is ambiguous"]),
    ],
    &[
        Rule { steps: FOLDERS, ..kind(Cause::FolderMissing, &[ErrorKind::NotFound]) },
        Rule { steps: FOLDERS, ..kind(Cause::FolderReadOnly, &[ErrorKind::PermissionDenied]) },
        Rule {
            steps: &[StepId::Settings, StepId::Mailbox, StepId::Permissions],
            ..kind(Cause::PermissionLacking, &[ErrorKind::PermissionDenied])
        },
        kind(Cause::SettingsWrong, &[ErrorKind::InvalidConfig, ErrorKind::Unsupported]),
        kind(Cause::MailboxUnknown, &[ErrorKind::MailboxGone]),
        Rule { steps: &[StepId::Mailbox], ..kind(Cause::MailboxUnknown, &[ErrorKind::NotFound]) },
        kind(Cause::SignInRefused, &[ErrorKind::Unauthenticated]),
        kind(Cause::SignInNeeded, &[ErrorKind::SignInNeeded]),
        kind(Cause::Throttled, &[ErrorKind::Throttled]),
        kind(Cause::ServiceDown, &[ErrorKind::Unavailable]),
        kind(Cause::NoAnswer, &[ErrorKind::Timeout]),
    ],
];

impl Rule {
    fn applies(&self, error: &Error, text: &str, step: StepId, seen: Option<Seen>) -> bool {
        let code = error.code().unwrap_or_default();
        self.seen.is_none_or(|needed| seen == Some(needed))
            && (self.codes.is_empty() || self.codes.iter().any(|c| c.eq_ignore_ascii_case(code)))
            && (self.says.is_empty() || self.says.iter().any(|words| text.contains(words)))
            && (self.kinds.is_empty() || self.kinds.contains(&error.kind()))
            && (self.steps.is_empty() || self.steps.contains(&step))
    }
}

/// The rules that decide.
fn deciding(error: &Error, step: StepId, seen: Option<Seen>) -> Vec<&'static Rule> {
    let text = error.chain().to_string().to_lowercase();
    let parts =
        RULES.iter().map(|part| part.iter().filter(|rule| rule.applies(error, &text, step, seen)).collect::<Vec<_>>());
    parts.into_iter().find(|rules| !rules.is_empty()).unwrap_or_default()
}

/// What an error means at this step, with what else is known.
pub(super) fn of(error: &Error, step: StepId, seen: Option<Seen>) -> Cause {
    deciding(error, step, seen).first().map_or(Cause::Unknown, |rule| rule.cause)
}

#[cfg(all(test, feature = "graph", feature = "imap"))]
mod corpus;
