-- Notes that have waited for too long are found by their age.
create index pending_content_created on pending_content (created_at);
