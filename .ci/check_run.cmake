# cmake -DRUN=<run directory> -P .ci/check_run.cmake: does it hold what docs/operations.md promises?
# CMake reads JSON, and is there wherever the project builds.
cmake_minimum_required(VERSION 3.24)
set(wrong "")

foreach(file config.yaml rounds.jsonl summary.json student.safetensors model.safetensors report.html)
  set(size 0)
  if(EXISTS ${RUN}/${file})
    file(SIZE ${RUN}/${file} size)
  endif()
  if(size EQUAL 0)
    list(APPEND wrong "${file} is missing or empty")
  endif()
endforeach()
if(wrong)
  list(JOIN wrong "\n  " wrong)
  message(FATAL_ERROR "${RUN}:\n  ${wrong}")
endif()

# wants(<JSON> <where> <keys …>): every key is there; "test.auc" is a key within a key.
function(wants json where)
  foreach(key IN LISTS ARGN)
    string(REPLACE "." ";" path ${key})
    string(JSON value ERROR_VARIABLE error GET "${json}" ${path})
    if(error)
      set(wrong ${wrong} "${where}: no ${key}")
    endif()
  endforeach()
  set(wrong ${wrong} PARENT_SCOPE)
endfunction()

file(READ ${RUN}/summary.json summary)
wants("${summary}" summary.json job completed ended_because config_hash seed rounds partial_rounds void_rounds
  test.images test.auc test.auc_low test.auc_high test.accuracy test.sensitivity test.specificity test.ece
  teacher.auc teacher.parameters distilled.auc student student_parameters student_macs classes
  bytes_up bytes_down bytes_up_fp32 model_hash sites data.skipped data.duplicates data.notes
  threads wall_seconds peak_rss_bytes)
string(JSON completed GET "${summary}" completed)
if(NOT completed)
  list(APPEND wrong "summary.json: the job was not completed")
endif()
string(JSON hash GET "${summary}" model_hash)
string(LENGTH "${hash}" digits)
if(NOT digits EQUAL 64)
  list(APPEND wrong "summary.json: model_hash '${hash}' is no SHA-256")
endif()
string(JSON sites LENGTH "${summary}" sites)
if(sites LESS 2)
  list(APPEND wrong "summary.json: ${sites} sites reported")
else()
  math(EXPR last "${sites} - 1")
  foreach(i RANGE ${last})
    string(JSON site GET "${summary}" sites ${i})
    wants("${site}" "summary.json, site ${i}" name train validation test local_auc global_auc personalised_auc
      chosen metric difference difference_low difference_high p_value verdict)
  endforeach()
endif()

file(STRINGS ${RUN}/rounds.jsonl lines ENCODING UTF-8)
string(JSON rounds GET "${summary}" rounds)
list(LENGTH lines count)
if(NOT count EQUAL rounds)
  list(APPEND wrong "rounds.jsonl: ${count} lines for ${rounds} rounds")
endif()
foreach(line IN LISTS lines)
  wants("${line}" rounds.jsonl round outcome accepted missing samples cohort_samples train_loss seconds
    validation.auc bytes_up bytes_down)
endforeach()

file(READ ${RUN}/report.html report)
if(NOT report MATCHES "</html>" OR report MATCHES "src=\"http")
  list(APPEND wrong "report.html: not a whole page, or one that loads something from elsewhere")
endif()

if(wrong)
  list(JOIN wrong "\n  " wrong)
  message(FATAL_ERROR "${RUN}:\n  ${wrong}")
endif()
