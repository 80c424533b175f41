-- What the metrics queries need beside the rows.

-- Sums by day are read by the day of the observation, whatever hour its trace began in.
create index usage_hourly_date on usage_hourly (project_id, date);

-- The names of the tools that a model was offered: JSON text of a list of definitions.
create function tool_names(definitions text) returns text[] language plpgsql immutable parallel safe as $$
begin
    return array(
        select distinct coalesce(tool ->> 'name', tool -> 'function' ->> 'name') as name
          from jsonb_array_elements(case when jsonb_typeof(definitions::jsonb) = 'array'
                                         then definitions::jsonb else '[]' end) tool
         where coalesce(tool ->> 'name', tool -> 'function' ->> 'name') is not null order by 1);
exception when data_exception then
    return '{}';
end $$;

-- The names of the tools that a model called, each as often as it did, wherever its output says so.
create function called_tools(output text) returns text[] language plpgsql immutable parallel safe as $$
begin
    if output is null or output not like '%tool%' then
        return '{}';
    end if;
    return array(
        select coalesce(call #>> '{function,name}', call ->> 'name', call ->> 'toolName')
          from jsonb_path_query(output::jsonb,
                   'strict $.** ? (@.type == "tool_use" || @.type == "tool-call" || @.type == "tool_call"
                        || @.type == "function" || @.type == "function_call")') call
         where coalesce(call #>> '{function,name}', call ->> 'name', call ->> 'toolName') is not null);
exception when data_exception then
    return '{}';
end $$;
