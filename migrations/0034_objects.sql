-- What is said of a trace or of an observation ends with it, and is found by it.
create index annotation_queue_items_of_object on annotation_queue_items (project_id, object_id);
-- Pieces that are nobody's bytes are found by what they could be the bytes of.
create index media_of_upload on media (project_id, upload_id) where upload_id is not null;
