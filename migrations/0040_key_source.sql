-- Where a key pair is from: `configured` at start, or made by somebody (null). Configured pairs end when they
-- are no longer configured; one that was revoked keeps its row, so that a restart does not bring it back.
alter table api_keys add column source text;
