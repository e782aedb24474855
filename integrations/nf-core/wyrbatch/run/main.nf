process WYRBATCH_RUN {
    tag "${meta.id}"
    label 'process_high'

    conda "${moduleDir}/environment.yml"
    container "${workflow.containerEngine in ['singularity', 'apptainer'] && !task.ext.singularity_pull_docker_container
        ? 'https://depot.galaxyproject.org/singularity/wyr-batch:0.1.0--pyhdfd78af_0'
        : 'quay.io/biocontainers/wyr-batch:0.1.0--pyhdfd78af_0'}"

    input:
    tuple val(meta), path(reads)
    path bundle

    output:
    tuple val(meta), path("*.masks.parquet"), emit: masks
    tuple val(meta), path("*.run.json"), emit: summary
    tuple val(meta), path("*.run.log"), emit: log
    tuple val("${task.process}"), val('wyr-batch'), eval("wyr-batch --version | sed 's/wyr-batch //'"), topic: versions, emit: versions_wyrbatch

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def prefix = task.ext.prefix ?: "${meta.id}"
    def paired = !meta.single_end && [reads].flatten().size() == 2 ? '--paired' : ''
    def model = bundle ? "--model ${bundle}" : ''
    // Exit code 3: all rows are there, but some reads failed. Their rows, the summary and the log say so.
    """
    wyr-batch run \\
        ${args} \\
        ${paired} \\
        ${model} \\
        --threads ${task.cpus} \\
        --json ${prefix}.run.json \\
        --log ${prefix}.run.log \\
        --output ${prefix}.masks.parquet \\
        ${reads} || { code=\$?; [ \$code -eq 3 ] || exit \$code; }
    """

    stub:
    def prefix = task.ext.prefix ?: "${meta.id}"
    """
    touch ${prefix}.masks.parquet
    touch ${prefix}.run.json
    touch ${prefix}.run.log
    """
}
