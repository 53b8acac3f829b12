-- Nobody uses a new database without taking the role of a tenant.
SELECT synapse_shut_out_old_programs(name) FROM synapse_tables_of_old_programs() AS name;
