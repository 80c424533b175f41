-- How strongly an observation with a parent stands for its trace: 4 if its parent is known never to come,
-- 3 if it is the first one of its application; else null.
alter table observations add column root_rank int;
