//! File names.

/// See [`Attachment::file_name`](crate::Attachment::file_name).
pub(crate) fn safe_file_name(name: Option<&str>, content_type: &str) -> String {
    let _ = content_type;
    name.unwrap_or("attachment").to_owned()
}
