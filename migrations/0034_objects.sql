-- What is said of a trace or of an observation ends with it, and is found by it.
-- Older programs kept texts of any length here; those are no ids, and no index could hold them.
create index annotation_queue_items_of_object on annotation_queue_items (project_id, object_id)
    where octet_length(object_id) <= 1200;
-- Pieces that are nobody's bytes are found by what they could be the bytes of.
create index media_of_upload on media (project_id, upload_id) where upload_id is not null;
